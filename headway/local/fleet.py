"""The stack's supervisor as a fleet: the scaler asks it for instances over its control socket."""

from collections.abc import Mapping
from pathlib import Path

from headway.local.control import ask
from headway.ports import InstanceCount


class SupervisedFleet:
    """`headway.ports.Fleet` on the supervisor that listens at ``control``."""

    def __init__(self, control: Path) -> None:
        self._control = control

    def counts(self) -> Mapping[str, InstanceCount]:
        """See `headway.ports.Fleet.counts`."""
        said = ask(self._control, {"do": "status"})["instances"]
        return {
            job: InstanceCount(wanted=each["instances"], ready=each["ready"], held=each["held"])
            for job, each in said.items()
        }

    def scale(self, job: str, instances: int) -> None:
        """See `headway.ports.Fleet.scale`."""
        ask(self._control, {"do": "scale", "name": job, "instances": instances, "held": False})


def supervised(address: str) -> SupervisedFleet:
    """Return the fleet of the supervisor that listens at this path.

    The path is given and not found from settings: the supervisor gives its processes a temporary folder of their own,
    and the folder for sockets of a deep state folder is found by that.
    """
    return SupervisedFleet(Path(address))
