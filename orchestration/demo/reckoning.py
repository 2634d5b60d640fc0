"""The demo's last step: every figure of the report, read back from the part that holds it, and the promises checked."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from orchestration.demo.plane import LOAD_RATE_PER_S, Plane
from orchestration.demo.quality import july_quality
from orchestration.demo.story import Story
from serving.balancer import count_answers
from streaming.replay import ASKS_PER_S

# Below it something is broken; it does not rank models (S25).
LOWEST_AVERAGE_PRECISION = 0.60


@dataclass
class Asked:
    """What the demo's clients counted: open-loop requests without retries, and those made by hand."""

    in_lock_step: int = 0
    under_load: int = 0
    by_hand: int = 0
    refused_by_hand: int = 0
    failed: int = 0

    @property
    def offered(self) -> int:
        """Requests that should have been answered with a prediction."""
        return self.in_lock_step + self.under_load + self.by_hand


def reckon(story: Story, plane: Plane, clients: Asked, *, v1: int, dataset: str, weeks: list[dict[str, Any]]) -> None:
    """Read every figure of the report from the part that holds it, and note every promise that was not kept."""
    asked, failed = clients.offered, clients.failed
    ledger = plane.settled_ledger(predictions=asked - failed)
    story.tell(
        f"ledger: raw {ledger.raw:,} = enriched {ledger.enriched:,} + letters {ledger.letters} + duplicates "
        f"{ledger.duplicates} + in flight {ledger.in_flight}; lake {ledger.lake:,}"
    )
    story.expect(ledger.balanced, f"the ledger does not balance: {ledger.facts(limit=20)}")
    served = plane.served().height
    parity = plane.parity()
    story.tell(
        f"parity: {parity.checked:,} values of {parity.predictions:,} predictions, {parity.mismatched} mismatches"
    )
    story.expect(parity.held, f"parity: {parity.mismatched} mismatches, first {parity.mismatches[:1]}")
    counted = count_answers(plane.settings.state / "log" / "haproxy.log", f"/v1/{plane.product.name}/")
    story.tell(
        f"load balancer: {counted.by_status}, ends {counted.by_end}; clients asked {asked + clients.refused_by_hand}"
    )
    story.expect(
        sum(counted.by_status.values()) == asked + clients.refused_by_hand
        and counted.by_status.get(200, 0) == asked - failed,
        f"the load balancer counted {counted.by_status}, the clients {asked - failed} answered of {asked + clients.refused_by_hand}",
    )
    quality = july_quality(plane, version=v1, dataset=dataset)
    story.tell(f"v1 on July: {quality}")
    planted = [week for week in weeks if week["planted"]]
    story.expect(served >= asked - failed, f"{served} predictions are logged, {asked - failed} were answered")
    story.expect(failed == 0, f"{failed} requests failed")
    story.expect(
        quality["average_precision"] >= LOWEST_AVERAGE_PRECISION,
        f"v1's average precision on July is {quality['average_precision']}, wanted {LOWEST_AVERAGE_PRECISION}",
    )
    detected = detected_after(planted)
    story.expect(
        detected is not None and detected <= 2, f"the planted change was found after {detected} windows, wanted 2"
    )
    story.facts |= {
        "events_accepted": ledger.raw,
        "events_enriched": ledger.enriched,
        "letters": ledger.letters,
        "duplicates": ledger.duplicates,
        "ledger": ledger.facts(limit=20),
        "lake_rows": plane.lake.scan("events").select(pl.len()).collect().item(),
        "predictions": served,
        "failed_requests": failed,
        "offered": {
            "n": asked,
            "in_lock_step": clients.in_lock_step,
            "rate_per_s_in_lock_step": ASKS_PER_S,
            "under_load": clients.under_load,
            "rate_per_s_under_load": LOAD_RATE_PER_S,
        },
        "load_balancer": {"by_status": dict(counted.by_status), "by_end": dict(counted.by_end)},
        "model": {"v1": quality},
        "parity": {
            "checked": parity.predictions,
            "values": parity.checked,
            "mismatches": parity.mismatched,
            "corrected_later": parity.corrected,
            "lag": {lag.view: {"max_s": lag.max_s, "median_s": lag.median_s} for lag in parity.lag},
        },
        "windows": weeks,
        "planted_change_detected_after": detected,
    }


def detected_after(planted: list[dict[str, Any]]) -> int | None:
    """Return after how many planted weeks the second warning in a row came; None when it did not."""
    for place, week in enumerate(planted):
        if week["warnings"] and place and planted[place - 1]["warnings"]:
            return place + 1
    return None


def close(story: Story) -> None:
    """Print the closing table."""
    facts = story.facts
    story.table(
        [
            (
                "events accepted",
                f"{facts['events_accepted']:,} = {facts['events_enriched']:,} enriched + {facts['letters']} letters + {facts['duplicates']} duplicates",
            ),
            ("rows in the lake", f"{facts['lake_rows']:,}"),
            (
                "predictions served",
                (
                    f"{facts['predictions']:,} of {facts['offered']['n']:,} offered (open loop, {ASKS_PER_S:.0f}/s in lock-step, "
                    f"{LOAD_RATE_PER_S:.0f}/s under load), {facts['failed_requests']} failed"
                ),
            ),
            (
                "v1 on July",
                f"AP {facts['model']['v1']['average_precision']}, AUC {facts['model']['v1']['roc_auc']} (reference spec {facts['model']['v1']['reference']})",
            ),
            (
                "parity",
                f"{facts['parity']['values']:,} values, {facts['parity']['mismatches']} mismatches, {facts['parity']['corrected_later']} corrected later",
            ),
            ("planted change", f"found after {facts['planted_change_detected_after']} windows"),
            ("retraining run", str(facts["retrain_run_id"])),
            ("versions live", " -> ".join(f"v{version}" for version in facts["versions_live"])),
            (
                "seconds",
                f"{sum(story.seconds.values()):.0f} in all; "
                + ", ".join(f"{n} {s:.0f}" for n, s in story.seconds.items()),
            ),
        ]
    )
