"""Who listens on which port of this machine, read from the kernel's own tables.

Pure standard library, as `headway.doctor` asks before any environment exists. Reads only: it never connects, because
an answer on a port does not say whose it is. What bites: the command of another user's process cannot be read, so its
holder is reported without one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A port somebody listens on; ``pid`` and ``command`` are None when the process belongs to another user."""

    port: int
    pid: int | None
    command: str | None

    def __str__(self) -> str:
        """Words for a message: port, pid and command."""
        if self.pid is None:
            return f"port {self.port} is held by a process of another user"
        return f"port {self.port} is held by pid {self.pid} ({self.command})"


def holders(ports: Iterable[int], *, proc: Path = Path("/proc")) -> tuple[Holder, ...]:
    """Give the holder of each of these ports that is taken, in port order, whatever address it is bound to."""
    inodes = {inode: port for port, inode in _listening(proc) if port in set(ports)}
    found: dict[int, Holder] = {
        port: Holder(port=port, pid=None, command=None) for port in sorted(set(inodes.values()))
    }
    if not found:
        return ()
    for pid, inode in _socket_owners(proc):
        port = inodes.get(inode)
        # The lowest pid is the one that opened it: children that inherited the socket come later.
        if port is not None and (found[port].pid or pid) >= pid:
            found[port] = Holder(port=port, pid=pid, command=_command(proc, pid))
    return tuple(found.values())


def _listening(proc: Path) -> Iterator[tuple[int, str]]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6 has no tcp6
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                yield int(fields[1].rpartition(":")[2], 16), fields[9]


def _socket_owners(proc: Path) -> Iterator[tuple[int, str]]:
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            entries = list((folder / "fd").iterdir())
        except OSError:  # ended meanwhile, or another user's
            continue
        for entry in entries:
            try:
                target = str(entry.readlink())
            except OSError:  # closed meanwhile: one of our own always is, that of the listing
                continue
            if target.startswith("socket:["):
                yield int(folder.name), target[len("socket:[") : -1]


def _command(proc: Path, pid: int) -> str:
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "ended meanwhile"
    text = b" ".join(words).decode(errors="replace")
    return text if len(text) <= 120 else f"{text[:117]}..."
