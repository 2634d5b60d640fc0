"""The hash a view has in the online store beside its rows: watermark per partition, their minimum, the bootstrap's mark.

One command reads what a reader needs of it: the field ``view``, milliseconds, absent until every partition has reported,
and the mark, ``HASH:MICROSECONDS``.
"""

from headway.errors import ContractViolation
from headway.features.readiness import ViewState

WATERMARK, MARK = "view", "bootstrap"


def watermark_key(project: str, view: str) -> str:
    """The hash that holds a view's watermarks in milliseconds: one field per partition, and ``view`` for their minimum."""
    return f"hw:watermark:{project}:{view}"


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
