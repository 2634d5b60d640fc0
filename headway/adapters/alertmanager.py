"""Alerts to a Prometheus Alertmanager (API v2); it groups, silences and routes them, and drops repeats by their labels.

What bites: an alert without an end is resolved by Alertmanager itself after ``resolve_timeout`` (5 min) unless it is
sent again. A new cause is said once, so it carries its end, counted from when it is sent: counted from its letter, what
is told after a day away would arrive resolved and be shown to nobody.
"""

from collections.abc import Sequence
from typing import Any

import httpx

from headway.clock import Clock, format_us, to_us
from headway.errors import PermanentFailure, TransientFailure
from headway.letter_alerts import SHOWN_FOR_US, Alert

_TIMEOUT_S = 2.0


class Alertmanager:
    """`headway.letter_alerts.AlertReceiver` on one Alertmanager, by its address (``http://host:9093``)."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_S)
        self._clock = clock

    def send(self, alerts: Sequence[Alert]) -> None:
        """See `headway.letter_alerts.AlertReceiver.send`."""
        now_us = to_us(self._clock.now())
        try:
            answer = self._client.post("/api/v2/alerts", json=[_as_posted(alert, now_us=now_us) for alert in alerts])
        except httpx.HTTPError as error:
            raise TransientFailure(f"{self._client.base_url}: alerts not taken ({error!r}); send them again") from error
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise TransientFailure(f"{self._client.base_url}: alerts not taken ({answer.status_code}); send them again")
        if answer.is_error:
            raise PermanentFailure(
                f"{self._client.base_url}: alerts refused ({answer.status_code}: {answer.text[:300]})"
            )

    def close(self) -> None:
        """Release the connection."""
        self._client.close()


def _as_posted(alert: Alert, *, now_us: int) -> dict[str, Any]:  # Any: JSON
    facts = dict(alert.facts)
    labels = {"alertname": f"letters-{alert.kind}", "key": alert.key, "severity": "warning"}
    end_us = alert.at_us if alert.resolved else now_us + SHOWN_FOR_US
    return {
        "labels": labels | ({"reason": facts["reason"]} if "reason" in facts else {}),
        "annotations": {"summary": alert.summary, **facts},
        "startsAt": format_us(alert.started_us),
        "endsAt": format_us(end_us),
    }
