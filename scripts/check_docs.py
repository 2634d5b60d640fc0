"""``make docs``: links of the documents lead somewhere, commands they show exist, and pages made from code are current.

Commands are the lines of fenced ``console`` and ``sh`` blocks that call ``make`` or ``headway``. Links to other hosts
are not followed: a check that needs a network fails for reasons that are not ours.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from domains.catalogue import all_domains
from headway.cli import COMMANDS
from headway.features.catalogue import catalogue, markdown
from products.catalogue import all_products

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = "docs/features/catalogue.md"
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?(make|headway)(?: +([\w-]+))?", re.MULTILINE)


def documents(root: Path) -> list[Path]:
    """Every Markdown file a reader may come to."""
    folders = ("docs", "domains", "products", "deploy")
    return sorted([*root.glob("*.md"), *(file for name in folders for file in (root / name).rglob("*.md"))])


def dead_links(document: Path) -> Iterator[str]:
    """Say which relative links of a document lead to no file, or to no heading of one."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    for match in _LINK.finditer(text):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists():
            yield f"{target}: there is no such file"
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{target}: {file.name} has no such heading"


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def unknown_commands(document: Path, *, verbs: set[str], commands: set[str]) -> Iterator[str]:
    """Say which shown calls of make and headway name nothing that exists."""
    for language, block in _FENCE.findall(document.read_text(encoding="utf-8")):
        if language not in ("console", "sh", "bash"):
            continue
        for program, name in _CALL.findall(block):
            if name and name not in (verbs if program == "make" else commands):
                yield f"{program} {name}: there is no such {'verb' if program == 'make' else 'command'}"


def stale_catalogue(page: str) -> Iterator[str]:
    """Say when the catalogue's page is not the catalogue of the definitions."""
    if page != markdown(catalogue(all_domains().values(), all_products().values())):
        yield f"differs from the definitions: headway features catalogue --markdown > {CATALOGUE}"


def verbs_of(makefile: str) -> set[str]:
    """The targets of a Makefile."""
    return set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def main() -> int:
    """Print each problem with its document; exit code 0 only when there is none."""
    verbs = verbs_of((ROOT / "Makefile").read_text(encoding="utf-8"))
    commands = {entry.name for entry in COMMANDS}
    checked = documents(ROOT)
    problems = [
        f"{document.relative_to(ROOT)}: {problem}"
        for document in checked
        for problem in (*dead_links(document), *unknown_commands(document, verbs=verbs, commands=commands))
    ]
    problems += [
        f"{CATALOGUE}: {problem}" for problem in stale_catalogue((ROOT / CATALOGUE).read_text(encoding="utf-8"))
    ]
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.stdout.write(f"docs: {len(checked)} documents, {len(problems)} problems\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
