"""An Alertmanager in memory: keeps alerts by kind and key, shows those that stand; for tests and for trying a job out."""

import re
from collections.abc import Sequence

from headway.clock import Clock, to_us
from headway.errors import PermanentFailure, TransientFailure
from headway.letter_alerts import SHOWN_FOR_US, Alert, AlertKind

# Of a fact, as it becomes an annotation.
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class MemoryAlertmanager:
    """`headway.letter_alerts.AlertReceiver` without a server. ``away`` makes it unreachable until it is set back."""

    def __init__(self, clock: Clock) -> None:
        self.away = False
        self._clock = clock
        self._until_us: dict[tuple[AlertKind, str], int] = {}
        self._alerts: dict[tuple[AlertKind, str], Alert] = {}

    def send(self, alerts: Sequence[Alert]) -> None:
        """See `headway.letter_alerts.AlertReceiver.send`."""
        if self.away:
            raise TransientFailure("alertmanager: away as planted; send them again")
        refused = [alert for alert in alerts if not all(_NAME.fullmatch(name) for name, _ in alert.facts)]
        for alert in (each for each in alerts if each not in refused):
            name = (alert.kind, alert.key)
            self._until_us[name] = alert.at_us if alert.resolved else to_us(self._clock.now()) + SHOWN_FOR_US
            self._alerts[name] = alert
        if refused:
            raise PermanentFailure(
                f"alertmanager: alerts refused (facts of {refused[0].key!r}: wanted names of labels)"
            )

    def standing(self) -> list[Alert]:
        """Return what a person sees now."""
        now_us = to_us(self._clock.now())
        return [alert for name, alert in self._alerts.items() if self._until_us[name] > now_us]
