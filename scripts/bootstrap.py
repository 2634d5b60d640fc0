"""Makes `.venv`, or brings it up to date, with nothing but a system Python 3.11 or 3.12; `make` calls it before each verb.

venv, then the `uv` that requirements.lock names, then everything in the lock, each file checked against its hash, then
the project itself. Returns at once when the environment was made from this lock and this pyproject. Downloads are kept
in ~/.cache/headway, so a second checkout needs no network.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
CACHE = Path.home() / ".cache" / "headway"
_TELL_EVERY_S = 10.0
# What pip and uv say when there is no way out of the machine, as opposed to a package that is gone or altered.
_NO_NETWORK = (
    "name resolution",
    "dns error",
    "network is unreachable",
    "connection refused",
    "failed to establish a new connection",
    "error sending request",
    "operation timed out",
    "no matching distribution",
)


class SetupFailed(Exception):
    """The environment could not be made; the message is for the person at the terminal."""


def stamp(root: Path, version: Sequence[int]) -> str:
    """Name the environment that this checkout wants: changes with lock, pyproject, Python and place."""
    digest = hashlib.sha256(f"{version[0]}.{version[1]} {root}\n".encode())
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def locked(lock_text: str, package: str) -> str:
    """The lock's entry of one package: version and hashes, as pip reads it."""
    lines = lock_text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"{package}=="):
            end = number
            while lines[end].endswith("\\"):
                end += 1
            return "\n".join(lines[number : end + 1]) + "\n"
    raise SetupFailed(f"requirements.lock has no entry for {package}. Write it again with `make lock`.")


def explain(step: str, output: str) -> str:
    """One message for a step that failed: no network, or the tool's own last words."""
    last = [line.strip() for line in output.strip().splitlines()[-4:]]
    if any(sign in output.lower() for sign in _NO_NETWORK):
        return (
            f"could not download {step}: connect to the network once, or copy {CACHE} from a machine where "
            f"`make setup` has run. ({last[-1] if last else 'no output'})"
        )
    return f"{step}: failed. {' | '.join(last)}"


def main() -> int:
    """Make the environment when it is missing or not current."""
    try:
        _ensure()
    except SetupFailed as error:
        sys.stderr.write(f"setup: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("setup: interrupted; run it again to go on\n")
        return 130
    return 0


def _ensure() -> None:
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        raise SetupFailed(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]} ({sys.executable})")
    if not LOCK.exists():
        raise SetupFailed(f"{LOCK.name} is missing from the checkout. Restore it: git checkout {LOCK.name}")
    wanted = stamp(ROOT, sys.version_info[:2])
    if _current() == wanted:
        return
    # Two `make`s at once: the second waits for the first, and then finds nothing to do.
    folder = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    if _current() == wanted:
        return
    began = time.monotonic()
    _make(wanted)
    _say(f"environment ready in .venv after {time.monotonic() - began:.0f} s")


def _make(wanted: str) -> None:
    _stamp_file().unlink(missing_ok=True)
    python, uv = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "bin" / "uv"
    if not _same_python(python):
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        _step(
            "an environment (it needs the module venv; Debian: apt-get install python3-venv)",
            [sys.executable, "-m", "venv", str(ENVIRONMENT)],
        )
    if not uv.exists():
        _install_uv(python)
    # The lock names uv too, so a sync keeps it.
    sync = [str(uv), "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(LOCK)]
    if not _works([*sync, "--offline"]):
        _step("the packages of requirements.lock (about 1 GB the first time)", sync)
    # The builder comes from the lock as well: isolation would download one, unchecked.
    own = ["--quiet", "--python", str(python), "--offline", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    _step("the project itself", [str(uv), "pip", "install", *own])
    _stamp_file().write_text(wanted, encoding="utf-8")


def _install_uv(python: Path) -> None:
    """Install uv from its wheel in the cache, fetched into it the first time: pip's own cache still asks the index."""
    wheels = CACHE / "wheels"
    entry = ENVIRONMENT / "uv.requirement.txt"
    entry.write_text(locked(LOCK.read_text(encoding="utf-8"), "uv"), encoding="utf-8")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    checked = ["--require-hashes", "-r", str(entry)]
    install = [*pip, "install", "--no-index", "--find-links", str(wheels), *checked]
    if not _works(install):
        _step("the installer uv", [*pip, "download", "--retries", "2", "--dest", str(wheels), *checked])
        _step("the installer uv", install)


def _works(command: Sequence[str]) -> bool:
    """Whether a command that needs no network does what it should; what it says otherwise is of no interest."""
    return subprocess.run(command, capture_output=True, env=_environment(), check=False).returncode == 0


def _step(what: str, command: Sequence[str]) -> None:
    _say(f"{what} ...")
    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
    ) as run:
        while True:
            try:
                output, _ = run.communicate(timeout=_TELL_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                _say(f"  {time.monotonic() - began:.0f} s")
    if run.returncode != 0:
        raise SetupFailed(explain(what, output))


def _environment() -> dict[str, str]:
    # As pip does: a company's own certificates are the system's, and not in what uv brings along.
    return {"UV_CACHE_DIR": str(CACHE / "uv"), "UV_SYSTEM_CERTS": "true", **os.environ}


def _same_python(python: Path) -> bool:
    """Whether the environment runs at all (its Python may have been removed) and has our version."""
    if not python.exists():
        return False
    ask = [str(python), "-c", "import pip, sys; print(*sys.version_info[:2])"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False)
    has_uv = (python.parent / "uv").exists()
    version = " ".join(map(str, sys.version_info[:2]))
    return said.stdout.strip() == version or (has_uv and "No module named 'pip'" in said.stderr)


def _current() -> str | None:
    try:
        return _stamp_file().read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _stamp_file() -> Path:
    return ENVIRONMENT / "headway-stamp"


def _say(line: str) -> None:
    sys.stdout.write(f"setup: {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
