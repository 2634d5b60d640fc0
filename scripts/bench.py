"""``make bench``: lists what is in benchmarks/, each with the first line of its docstring, or runs one by name."""

import ast
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def found(folder: Path) -> dict[str, str]:
    """Name to purpose of every benchmark."""
    purposes = {}
    for file in sorted(folder.glob("*.py")):
        documented = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "says nothing about itself"
        purposes[file.stem] = documented.splitlines()[0]
    return purposes


def main() -> int:
    """List, or run the one named first; what follows the name is its own."""
    benchmarks = found(FOLDER)
    if len(sys.argv) == 1:
        lines = [f"{name:<24} {purpose}" for name, purpose in benchmarks.items()]
        sys.stdout.write("\n".join(lines or ["benchmarks/ holds no benchmark"]) + "\n")
        return 0
    name = sys.argv[1]
    if name not in benchmarks:
        sys.stderr.write(f"bench: there is no {name!r} in benchmarks/ (found: {', '.join(benchmarks) or 'none'})\n")
        return 2
    del sys.argv[1]
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
