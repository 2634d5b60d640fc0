"""kcat, a client of Kafka that is not ours: what a stranger writes and reads."""

import shutil
import subprocess

PATIENCE_S = 30.0


def kcat(bootstrap: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run it, quiet, and return what it prints."""
    found = shutil.which("kcat")
    assert found, "kcat is not on PATH. Debian: apt-get install kcat (deploy/apt.txt)"
    command = [found, "-q", "-b", bootstrap, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=PATIENCE_S).stdout
