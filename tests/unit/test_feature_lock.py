"""An edited definition of a version that is in use fails when definitions load, and says the way out."""

from dataclasses import replace
from pathlib import Path

import pytest

from domains import catalogue
from domains.catalogue import all_domains, check_views, lock_path
from domains.flights.domain import DOMAIN
from headway.errors import ContractViolation
from headway.features.lock import check_locked, extended, read_lock, write_lock
from products.catalogue import all_products

VIEW = DOMAIN.views[0]
EDITED = replace(VIEW, aggregates=VIEW.aggregates[:1])
NEXT = replace(EDITED, version=2)


def test_every_committed_view_is_in_its_domains_lock() -> None:
    for domain in all_domains().values():
        assert {view.qualified: view.digest for view in domain.every_view}.items() <= read_lock(
            lock_path(domain)
        ).items()


def test_an_edited_version_is_refused_and_told_to_become_the_next() -> None:
    with pytest.raises(ContractViolation, match=r"origin_delay\.v1 has hash .*make the change origin_delay version 2"):
        check_locked([EDITED], {VIEW.qualified: VIEW.digest}, where="views.lock")


def test_a_version_nobody_wrote_down_is_refused_with_the_command_that_does() -> None:
    with pytest.raises(ContractViolation, match=r"origin_delay\.v2 is not in it; add it with `headway features lock`"):
        check_locked([VIEW, NEXT], {VIEW.qualified: VIEW.digest}, where="views.lock")


def test_definitions_load_only_while_they_are_what_was_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways in: a job asks for the domain, a replica for the product."""
    path = tmp_path / "views.lock"
    monkeypatch.setattr(catalogue, "lock_path", lambda _: path)
    write_lock(path, extended(DOMAIN.every_view, {}, where="views.lock"))
    all_domains()
    all_products()

    path.write_text(path.read_text().replace(VIEW.digest, EDITED.digest))

    for load in (all_domains, all_products):
        with pytest.raises(ContractViolation, match=r"origin_delay\.v1 has hash"):
            load()


def test_a_domain_without_a_lock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "lock_path", lambda _: tmp_path / "views.lock")

    with pytest.raises(ContractViolation, match="is not in it"):
        check_views(DOMAIN)


def test_a_lock_is_extended_and_never_rewritten() -> None:
    locked = extended([VIEW], {"gone.v1": "0123456789abcdef"}, where="views.lock")

    assert extended([VIEW, NEXT], locked, where="views.lock") == {
        "gone.v1": "0123456789abcdef",
        VIEW.qualified: VIEW.digest,
        NEXT.qualified: NEXT.digest,
    }
    with pytest.raises(ContractViolation, match="was edited"):
        extended([EDITED, NEXT], locked, where="views.lock")


def test_a_removed_version_cannot_come_back_as_something_else() -> None:
    locked = extended([VIEW], {}, where="views.lock")
    without = extended([NEXT], locked, where="views.lock")

    with pytest.raises(ContractViolation, match="was edited"):
        check_locked([EDITED, NEXT], without, where="views.lock")


def test_a_lock_reads_back_as_it_was_written(tmp_path: Path) -> None:
    locked = extended([NEXT, VIEW], {}, where="views.lock")
    write_lock(tmp_path / "views.lock", locked)

    assert read_lock(tmp_path / "views.lock") == locked
    assert read_lock(tmp_path / "absent") == {}


@pytest.mark.parametrize("line", ["origin_delay.v1", "origin_delay.v1 a\norigin_delay.v1 b"])
def test_a_broken_lock_is_refused_by_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "views.lock").write_text(f"# a comment\n{line}\n")

    with pytest.raises(ContractViolation, match=r"views\.lock line [23]"):
        read_lock(tmp_path / "views.lock")
