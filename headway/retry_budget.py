"""How many retries a client may send: a share of its calls, so that a service in trouble is not asked twice as much.

A token bucket. Every call puts a fraction of a token in, every retry takes a whole one out; the reserve lets a quiet
client retry at all. Backoff spreads retries in time, a budget bounds their number: only both together end an overload.
"""

# A tenth: a service that fails every call is asked 1.1 times as often as one that works.
RATIO = 0.1
# Enough for the retries of one call after a long quiet time, and no more.
RESERVE = 5.0


class RetryBudget:
    """Counts calls and grants retries."""

    def __init__(self, *, ratio: float = RATIO, reserve: float = RESERVE) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._tokens = reserve

    def called(self) -> None:
        """Note one first attempt."""
        self._tokens = min(self._reserve, self._tokens + self._ratio)

    def take(self) -> bool:
        """Whether one more retry may be sent; takes its token."""
        # Ten tenths are not quite one.
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens -= 1.0
        return True
