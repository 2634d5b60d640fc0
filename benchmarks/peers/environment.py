"""The peers' own environments: one per requirements file, made once, outside the checkout.

A peer never shares packages with Headway, so neither is held back by the other's pins. Made by the `uv` of the
project's environment in ``~/.cache/headway/peers``; the folder's name carries the hash of the requirements.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from headway.commands import Say
from headway.errors import PermanentFailure

FOLDER = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "headway"


def peer_python(name: str, *, say: Say) -> Path:
    """Return the Python of the environment that ``requirements-<name>.txt`` describes; makes it when it is missing.

    Raises:
        PermanentFailure: there is no such file, or it cannot be installed.
    """
    requirements = FOLDER / f"requirements-{name}.txt"
    if not requirements.is_file():
        raise PermanentFailure(f"peer {name}: {requirements} is missing")
    version = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(version.encode() + requirements.read_bytes()).hexdigest()[:12]
    environment = CACHE / "peers" / f"{name}-{digest}"
    python = environment / "bin" / "python"
    done = environment / "complete"
    if not done.exists():
        say(f"peer {name}: making {environment}")
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(environment))
        _uv("pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(requirements))
        done.touch()
    return python


def _uv(*arguments: str) -> None:
    # As in scripts/bootstrap.py: one cache, and the system's certificates.
    environment = {"UV_CACHE_DIR": str(CACHE / "uv"), "UV_SYSTEM_CERTS": "true", **os.environ}
    command = [str(Path(sys.executable).parent / "uv"), *arguments]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        said = (run.stderr or run.stdout).strip().splitlines()
        raise PermanentFailure(f"uv {arguments[0]}: failed ({said[-1] if said else 'no output'}). Is there a network?")
