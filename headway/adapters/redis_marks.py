"""What the online store holds of ours beside Feast's fields: a view's watermarks and mark, and the version of each row.

One command reads what a reader needs of a view: the field ``view``, milliseconds, absent until every partition has
reported, and the mark, ``HASH:MICROSECONDS``. A row's version, ``MICROSECONDS:REVISION``, lies beside its values.
"""

from headway.errors import ContractViolation
from headway.features.readiness import ViewState

WATERMARK, MARK = "view", "bootstrap"


def watermark_key(project: str, view: str) -> str:
    """The hash that holds a view's watermarks in milliseconds: one field per partition, and ``view`` for their minimum."""
    return f"hw:watermark:{project}:{view}"


def guard_field(view: str) -> str:
    """The field of an entity's hash that holds the version of the view's row."""
    return f"_hw:{view}"


def row_version(held: bytes | None) -> tuple[int | None, int | None]:
    """Return event timestamp (microseconds UTC) and revision of a row; None and None where there is no row.

    Raises:
        ContractViolation: nobody wrote such a version.
    """
    if held is None:
        return None, None
    time_us, _, revision = held.decode(errors="replace").partition(":")
    if not (time_us.isdecimal() and revision.isdecimal()):
        raise ContractViolation(
            f"online store: a row's version is {held!r}, wanted MICROSECONDS:REVISION; bootstrap its view again"
        )
    return int(time_us), int(revision)


def view_state(watermark_ms: bytes | None, mark: bytes | None) -> ViewState:
    """Return what the two fields say.

    Raises:
        ContractViolation: nobody wrote such a mark.
    """
    watermark_us = None if watermark_ms is None else int(watermark_ms) * 1000
    if mark is None:
        return ViewState(watermark_us=watermark_us, bootstrapped_us=None, digest=None)
    digest, _, until = mark.decode(errors="replace").partition(":")
    if not until.isdigit():
        raise ContractViolation(
            f"online store: a view's mark is {mark!r}, wanted HASH:MICROSECONDS; bootstrap it again"
        )
    return ViewState(watermark_us=watermark_us, bootstrapped_us=int(until), digest=digest)
