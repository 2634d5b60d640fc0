"""What the online store holds of ours beside Feast's fields."""

import pytest

from headway.adapters.redis_marks import row_version
from headway.errors import ContractViolation


def test_a_rows_version_is_its_instant_and_its_revision() -> None:
    assert row_version(b"1372687200000000:42") == (1_372_687_200_000_000, 42)


def test_without_a_row_there_is_no_version() -> None:
    assert row_version(None) == (None, None)


@pytest.mark.parametrize("held", [b"", b"12", b"12:", b":1", b"-1:2", b"\xff:1"])
def test_a_version_nobody_wrote_is_refused_with_what_was_found(held: bytes) -> None:
    with pytest.raises(ContractViolation, match="wanted MICROSECONDS:REVISION"):
        row_version(held)
