"""Keep the garbage collector away from what lives as long as the process.

A stream job holds a batch of thousands of short-lived values at a time and dictionaries of millions of long-lived ones;
a Collector holds hundreds of events of a few hundred values each.
With Python's defaults every batch makes the collector walk all of them. Nothing on its
hot path makes cycles, so the walk finds nothing.
"""

import gc

# Allocations that survive between two looks at the young; the default of 700 is a third of one batch.
_YOUNG = 50_000


def spare_long_lived() -> None:
    """Take everything there is now out of the collector's sight, and have it look less often; call once, when built."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 100)
