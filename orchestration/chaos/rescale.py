"""Another number of instances of a job, as a change that is proven like a fault."""

import time
from collections.abc import Callable

from headway.clock import monotonic_s
from headway.errors import HeadwayError
from headway.local import lifecycle
from headway.settings import Settings
from orchestration.chaos.faults import Fault, Injector, What

_SCALED_WITHIN_S = 60.0


def rescale(
    settings: Settings, injector: Injector, job: str, instances: int, *, change: What, say: Callable[[str], None]
) -> None:
    """Have so many instances of a job; the fault has its proof when all are ready, and none if that takes too long."""
    begun_s = monotonic_s()
    fault = Fault(kind=job, name=job, what=change, at_s=begun_s, pid=0)
    injector.adopt(fault)
    deadline_s = begun_s + _SCALED_WITHIN_S
    while monotonic_s() < deadline_s:
        try:
            counts = lifecycle.scale(settings, job, instances, held=True, within_s=_SCALED_WITHIN_S)
        except HeadwayError as failure:
            say(f"{job} {change}: {failure}")
            time.sleep(1)
            continue
        fault.down_s = monotonic_s() - begun_s
        fault.proof = f"{counts['ready']} instances ready"
        return
