"""The planted bugs of the feature job and of the online store; see `orchestration.chaos.planted`."""

from typing import Any

# Any: what is patched is typed where it is defined, and deliberately broken here.

_SET = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. ARGV[3], unpack(ARGV, 4))\nreturn 1\n"
_OLDER = """
local seen = redis.call('HGET', KEYS[1], ARGV[1])
if seen and tonumber(string.sub(seen, 1, string.find(seen, ':', 1, true) - 1)) >= tonumber(ARGV[2]) then return 0 end
"""


def guard_nothing() -> None:
    """Whoever writes last is right."""
    _guard(_SET)


def refuse_equal_instants() -> None:
    """A row of an instant that is there already is left out, whatever its revision."""
    _guard(_OLDER + _SET)


def _guard(script: str) -> None:
    from headway.adapters import redis_online

    redis_online.GUARD = script


def leave_rows_out() -> None:
    """The online writer writes what it likes, and commits all of it."""
    from headway.adapters.redis_online import OnlineWriter

    write = OnlineWriter.write

    def most(self: Any, rows: Any) -> Any:
        return write(self, [row for row in rows if row.revision % 10])

    OnlineWriter.write = most  # type: ignore[method-assign]


def break_ties_by_arrival() -> None:
    """Of equal instants the last to arrive is the newest, whatever its id."""
    from headway.features.columns import Column

    absorb = Column.absorb

    def arrived_last(self: Any, k: int, stamped: Any, *, summed: bool) -> None:
        absorb(self, k, stamped, summed=summed)
        at = self.ks.index(k)
        if stamped[0] >= self.lasts[at][0]:
            self.lasts[at] = stamped

    Column.absorb = arrived_last  # type: ignore[method-assign]


def lose_expiries() -> None:
    """Time passes, and what has left a window stays in it until the next event."""
    from headway.features.windows import ViewTask

    on_tick = ViewTask.on_tick

    def silently(self: Any, *told: Any, **more: Any) -> Any:
        on_tick(self, *told, **more)
        return []

    ViewTask.on_tick = silently  # type: ignore[method-assign]
