"""A fleet in memory: what is wanted is there at once."""

from collections.abc import Mapping

from msgspec.structs import replace

from headway.errors import PermanentFailure
from headway.ports import InstanceCount


class MemoryFleet:
    """`headway.ports.Fleet` without processes; ``most`` says for each job how many instances have work."""

    def __init__(self, most: Mapping[str, int]) -> None:
        self._most = dict(most)
        self._counts = {job: InstanceCount(wanted=1, ready=1, held=False) for job in most}

    def counts(self) -> Mapping[str, InstanceCount]:
        """See `headway.ports.Fleet.counts`."""
        return dict(self._counts)

    def scale(self, job: str, instances: int) -> None:
        """See `headway.ports.Fleet.scale`."""
        known = self._counts.get(job)
        if known is None:
            raise PermanentFailure(f"no job {job!r} runs here (found: {', '.join(self._counts)})")
        if not 1 <= instances <= self._most[job]:
            raise PermanentFailure(f"{job}: got {instances} instances, wanted 1 to {self._most[job]}")
        if known.held:
            raise PermanentFailure(f"{job}: a person holds it at {known.wanted} instances")
        self._counts[job] = replace(known, wanted=instances, ready=instances)

    def hold(self, job: str, instances: int) -> None:
        """Do what a person does: set a number that the scaler may not change."""
        self._counts[job] = InstanceCount(wanted=instances, ready=instances, held=True)
