"""``make proto``: writes the Python of every ``serving/proto/*.proto``, which is committed; ``--check`` only compares.

The generated files are excluded from the formatter and the linter, and never edited.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "serving" / "proto"


def generate(into: Path) -> None:
    """Write the generated files of all contracts under a folder, as ``serving/proto/<name>_pb2.py`` and ``.pyi``.

    Raises:
        SystemExit: protoc refuses a file; it has said why.
    """
    sources = [str(file.relative_to(ROOT)) for file in sorted(FOLDER.glob("*.proto"))]
    include = str(files("grpc_tools") / "_proto")
    command = ["protoc", f"-I{ROOT}", f"-I{include}", f"--python_out={into}", f"--pyi_out={into}", *sources]
    if protoc.main(command) != 0:
        raise SystemExit(1)


def outdated() -> list[str]:
    """Name the committed files that are not what the contracts generate."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {file.name: file.read_text() for file in (Path(folder) / "serving" / "proto").iterdir()}
    return [
        name
        for name, text in sorted(fresh.items())
        if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text
    ]


def main() -> int:
    """Write, or with ``--check`` compare; exit code 1 when something is outdated."""
    if "--check" in sys.argv[1:]:
        late = outdated()
        sys.stdout.write("".join(f"proto: serving/proto/{name} is outdated; run make proto\n" for name in late))
        return 1 if late else 0
    generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
