import re
from pathlib import Path
from types import ModuleType

import pytest

from headway.settings import project_root
from tests.scripts import script

LOCK = (project_root() / "requirements.lock").read_text()


@pytest.fixture
def bootstrap() -> ModuleType:
    return script("bootstrap")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "requirements.lock").write_text("a==1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_the_environment_is_made_again_when_what_it_was_made_from_changes(
    bootstrap: ModuleType, checkout: Path, name: str
) -> None:
    before = bootstrap.stamp(checkout, (3, 11))
    (checkout / name).write_text("changed\n")

    assert before != bootstrap.stamp(checkout, (3, 11))


def test_an_environment_of_another_python_or_a_moved_checkout_is_not_current(
    bootstrap: ModuleType, checkout: Path
) -> None:
    moved = checkout.rename(checkout.with_name("moved"))
    stamps = {bootstrap.stamp(moved, (3, 11)), bootstrap.stamp(moved, (3, 12))}
    back = moved.rename(checkout)

    assert len({*stamps, bootstrap.stamp(back, (3, 11))}) == 3


def test_the_installer_is_taken_from_the_lock_with_its_hashes(bootstrap: ModuleType) -> None:
    entry = bootstrap.locked(LOCK, "uv")

    assert re.match(r"uv==[\d.]+ \\\n", entry)
    assert entry.count("--hash=sha256:") >= 2
    assert not entry.rstrip().endswith("\\")


def test_a_machine_without_network_is_told_to_connect_once(bootstrap: ModuleType) -> None:
    said = "error: Request failed\n  Caused by: dns error\n  Caused by: Temporary failure in name resolution"

    message = bootstrap.explain("the packages", said)

    assert "could not download the packages: connect to the network once" in message
    assert "\n" not in message


def test_any_other_failure_is_told_in_the_tools_own_words(bootstrap: ModuleType) -> None:
    said = "error: Hash mismatch for `numpy==2.4.6`"

    assert "Hash mismatch for `numpy" in bootstrap.explain("the packages", said)


def test_the_lock_names_no_host_and_every_package_has_hashes() -> None:
    """A registry's address in the lock would send everybody's installer there."""
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]

    assert not re.search(r"://|index-url|find-links|^-", LOCK, re.MULTILINE)
    assert len(entries) > 200
    assert all("--hash=sha256:" in entry for entry in entries)
