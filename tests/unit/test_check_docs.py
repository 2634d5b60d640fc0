from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import script


@pytest.fixture
def check_docs() -> ModuleType:
    return script("check_docs")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "other.md").write_text("# Other\n\n## What `make up` does\n")
    return tmp_path / "page.md"


def test_a_link_to_a_file_or_heading_that_is_not_there_is_found(check_docs: ModuleType, page: Path) -> None:
    page.write_text("[a](gone.md) [b](other.md#nowhere) [c](#here) ![d](gone.png)\n")

    assert [p.split(":")[0] for p in check_docs.dead_links(page)] == [
        "gone.md",
        "other.md#nowhere",
        "#here",
        "gone.png",
    ]


def test_a_link_that_leads_somewhere_is_no_problem(check_docs: ModuleType, page: Path) -> None:
    page.write_text("# Here\n[a](other.md) [b](other.md#what-make-up-does) [c](#here) [d](https://example.org/x)\n")

    assert list(check_docs.dead_links(page)) == []


def test_a_shown_command_that_does_not_exist_is_found(check_docs: ModuleType, page: Path) -> None:
    page.write_text("```console\n$ make demo\n$ headway statsu\nmake coffee\n```\n```python\nmake = up\n```\n")

    problems = list(check_docs.unknown_commands(page, verbs={"demo"}, commands={"status"}))

    assert [problem.split(":")[0] for problem in problems] == ["headway statsu", "make coffee"]


def test_the_documents_of_this_checkout_hold(check_docs: ModuleType) -> None:
    assert check_docs.main() == 0
