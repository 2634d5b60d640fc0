"""Checks that this machine can run Headway: ``python3 headway/doctor.py`` before the environment exists, or ``headway doctor``.

Standard library only, and nothing is installed, started or connected to. Each finding that fails names the command
that mends it. What bites: run as a script, Python would look for modules in this folder first, where `events` or
`ports` are ours; so the first thing it does is to look in the checkout instead.
"""

from __future__ import annotations  # an older Python has to get as far as saying that it is too old

import argparse
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headway.commands import Run
    from headway.local.ports import Holder

WANTED_PYTHON = ((3, 11), (3, 12))
WANTED_JAVA = (17, 21)
# The block of `headway.settings.Ports`, repeated because settings need what is not installed yet; a test compares.
PORT_BLOCK = range(18_000, 18_100)
# Environment 2.5 GB, its download cache as much again, jars and wheels 0.5 GB, state of the demo 1 GB, some air.
WANTED_DISK_GB = 8.0
# Ray stops putting objects on a disk that is fuller than this.
FULLEST_DISK = 0.95
# The demo's stack holds 4 to 6 GB at its peak.
WANTED_MEMORY_GB = 6.0
# The broker, HAProxy and Ray each hold hundreds of files.
WANTED_OPEN_FILES = 4_096
_GB = 1e9


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``mend`` is the command or step that mends it; None when it holds."""

    name: str
    holds: bool
    found: str
    mend: str | None = None


def check_python(version: Sequence[int]) -> Finding:
    """Python 3.11 or 3.12."""
    found = ".".join(map(str, version[:3]))
    holds = WANTED_PYTHON[0] <= tuple(version[:2]) <= WANTED_PYTHON[1]
    return Finding("python", holds, found, None if holds else "apt-get install python3.11 python3.11-venv")


def check_venv(*, has_venv: bool, has_pip: bool) -> Finding:
    """The modules that make an environment."""
    missing = [name for name, has in (("venv", has_venv), ("ensurepip", has_pip)) if not has]
    if missing:
        return Finding(
            "venv", holds=False, found=f"no module {' and '.join(missing)}", mend="apt-get install python3-venv"
        )
    return Finding("venv", holds=True, found="modules venv and ensurepip are there")


def check_tool(name: str, path: str | None) -> Finding:
    """A program on PATH that Debian packages under its own name."""
    return Finding(name, path is not None, path or "not on PATH", None if path else f"apt-get install {name}")


def check_library(name: str, *, loads: bool, package: str) -> Finding:
    """A shared library that wheels expect from the system."""
    found = "loads" if loads else "the dynamic loader does not find it"
    return Finding(name, loads, found, None if loads else f"apt-get install {package}")


def check_java(version_text: str | None) -> Finding:
    """Java 17 or 21, from what ``java -version`` says; None when there is no java on PATH."""
    mend = "apt-get install openjdk-17-jre-headless"
    if version_text is None:
        return Finding("java", holds=False, found="not on PATH (the broker and Spark need it)", mend=mend)
    major = java_major(version_text)
    if major is None:
        first = version_text.strip().splitlines()[:1]
        return Finding("java", holds=False, found=f"its -version is not understood: {first}", mend=mend)
    if major not in WANTED_JAVA:
        found = f"Java {major}, wanted {' or '.join(map(str, WANTED_JAVA))}"
        return Finding("java", holds=False, found=found, mend=f"{mend}, and put it first on PATH")
    return Finding("java", holds=True, found=f"Java {major}")


def java_major(version_text: str) -> int | None:
    """The major version in the output of ``java -version``; None when there is none. Knows 1.8 and early access."""
    found = re.search(r'version "(?:1\.)?(\d+)', version_text)
    return None if found is None else int(found[1])


def check_ports(busy: Iterable[Holder], *, is_ours: Callable[[int], bool]) -> Finding:
    """Nobody else's process listens on our block; what our own stack holds is fine."""
    name = f"ports {PORT_BLOCK[0]}-{PORT_BLOCK[-1]}"
    strangers = [holder for holder in busy if holder.pid is None or not is_ours(holder.pid)]
    if not strangers:
        return Finding(name, holds=True, found="free, or held by Headway itself")
    pids = " ".join(sorted({str(holder.pid) for holder in strangers if holder.pid is not None}))
    mend = f"kill {pids}" if pids else "stop it as its user"
    return Finding(
        name, holds=False, found="; ".join(map(str, strangers)), mend=f"{mend}, or export HEADWAY_PORT_BASE=19000"
    )


def check_disk(folder: Path, *, free_bytes: int, total_bytes: int) -> Finding:
    """Room for the environment and its state, on a disk that Ray does not call full."""
    used = 1 - free_bytes / total_bytes
    found = f"{free_bytes / _GB:.1f} GB free at {folder}, {used:.0%} used"
    mend = None
    if free_bytes < WANTED_DISK_GB * _GB:
        mend = f"free {WANTED_DISK_GB - free_bytes / _GB:.1f} GB there, or clone to another disk"
    elif used > FULLEST_DISK:
        mend = f"free space there until less than {FULLEST_DISK:.0%} are used: Ray refuses fuller disks"
    return Finding("disk", mend is None, found, mend)


def check_memory(available_bytes: int) -> Finding:
    """Memory for the stack of the demo."""
    holds = available_bytes >= WANTED_MEMORY_GB * _GB
    mend = (
        None
        if holds
        else f"end other programs until {WANTED_MEMORY_GB:.0f} GB are available, or start parts: headway up --only events"
    )
    return Finding("memory", holds, f"{available_bytes / _GB:.1f} GB available", mend)


def check_writable(name: str, folder: Path) -> Finding:
    """A folder that can be written, or made: its nearest existing parent decides."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    holds = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    mend = None if holds else f"chown -R $USER {existing}"
    return Finding(name, holds, f"{folder}{'' if holds else ': not writable'}", mend)


def check_open_files(hard_limit: int) -> Finding:
    """How many files a process may open at most; the supervisor raises the soft limit to it by itself."""
    holds = hard_limit < 0 or hard_limit >= WANTED_OPEN_FILES
    mend = None if holds else f"ulimit -Hn {WANTED_OPEN_FILES} (as root, or in /etc/security/limits.conf)"
    return Finding("open files", holds, "no limit" if hard_limit < 0 else f"at most {hard_limit}", mend)


def check_downloads(*, environment: Path, cache: Path) -> Finding:
    """What the first start still has to download; needing a network once is no failure."""
    missing = [] if (environment / "bin" / "headway").exists() else ["Python packages"]
    missing += [] if any(cache.glob("jars/kafka-*")) else ["Kafka's jars"]
    missing += [] if any(cache.glob("jars/opensearch-*")) else ["the search node"]
    found = (
        f"the first start needs a network once, for {' and '.join(missing)}"
        if missing
        else "all there; no network is needed"
    )
    return Finding("downloads", holds=True, found=found)


def examine(root: Path) -> list[Finding]:
    """Look at this machine, for a checkout at ``root``."""
    python = check_python(sys.version_info[:3])
    if sys.version_info < WANTED_PYTHON[0]:
        return [python]  # the rest is written for a Python that can run it
    from resource import RLIMIT_NOFILE, getrlimit

    from headway.local.ports import holders

    cache = Path.home() / ".cache" / "headway"
    disk = shutil.disk_usage(root)
    return [
        python,
        check_venv(has_venv=find_spec("venv") is not None, has_pip=find_spec("ensurepip") is not None),
        check_tool("make", shutil.which("make")),
        check_library("libgomp.so.1", loads=_loads("libgomp.so.1"), package="libgomp1"),
        check_java(_java_version()),
        check_ports(holders(PORT_BLOCK), is_ours=_is_ours),
        check_disk(root, free_bytes=disk.free, total_bytes=disk.total),
        check_memory(_available_bytes()),
        check_open_files(getrlimit(RLIMIT_NOFILE)[1]),
        check_writable("checkout", root),
        check_writable("cache", cache),
        check_downloads(environment=root / ".venv", cache=cache),
    ]


def lines(findings: Iterable[Finding]) -> list[str]:
    """The findings for a person: one line each, a second one with what mends it."""
    told = []
    for finding in findings:
        told.append(f"{'ok  ' if finding.holds else 'FAIL'}  {finding.name:<18} {finding.found}")
        if finding.mend is not None:
            told.append(f"      {'':<18} mend: {finding.mend}")
    return told


def doctor_command(_parser: argparse.ArgumentParser) -> Run:
    """``headway doctor``."""
    from headway.commands import Outcome

    def run(_arguments: argparse.Namespace, _say: Callable[[str], None]) -> Outcome:
        findings = examine(_root())
        facts = {"findings": [asdict(finding) for finding in findings]}
        return Outcome(holds=all(finding.holds for finding in findings), facts=facts, lines=lines(findings))

    return run


def main() -> int:
    """``python3 headway/doctor.py [--json]``; exit code 0 only when everything holds."""
    parser = argparse.ArgumentParser(prog="python3 headway/doctor.py", description="Check this machine for Headway.")
    parser.add_argument("--json", action="store_true", help="give the findings as JSON")
    as_json = parser.parse_args().json
    findings = examine(_root())
    holds = all(finding.holds for finding in findings)
    facts = json.dumps({"holds": holds, "findings": [asdict(finding) for finding in findings]}, indent=2)
    sys.stdout.write(facts if as_json else "\n".join(lines(findings)))
    sys.stdout.write("\n")
    return 0 if holds else 1


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _java_version() -> str | None:
    java = shutil.which("java")
    if java is None:
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    return said.stderr + said.stdout


def _is_ours(pid: int) -> bool:
    try:
        return b"HEADWAY_STACK=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _available_bytes() -> int:
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    available = int(found[1]) * 1024 if found else 0
    group = Path("/sys/fs/cgroup")
    try:  # in a container the group's limit is the machine's
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(available, int(limit) - int(used))
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return available


if __name__ == "__main__":
    sys.path[0] = str(_root())
    sys.exit(main())
