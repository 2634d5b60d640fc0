"""The demo's plot, step by step. Every figure is read back from the part that made it: log, lake, registry, balancer."""

import json
from typing import Any

import httpx
import polars as pl

from headway.adapters.mlflow import MlflowRegistry
from headway.clock import HOUR_US, format_us
from headway.commands import Say
from headway.errors import PermanentFailure
from headway.local import lifecycle
from headway.monitoring_tables import decisions_table, monitoring_table
from headway.product import Product
from headway.registry import CANDIDATE, CHAMPION
from headway.settings import Settings
from orchestration.demo.calendar import Calendar, Stretch, demo_calendar, week_keys
from orchestration.demo.plane import Plane
from orchestration.demo.reckoning import Asked, close, reckon
from orchestration.demo.story import Story
from orchestration.launch import Dagster
from products.catalogue import all_products, find_product
from streaming.replay import Ask

RUN_TIMEOUT_S = 300.0


class Plot:
    """One run of the demo."""

    def __init__(self, settings: Settings, product: Product, story: Story, calendar: Calendar) -> None:
        self.settings = settings
        self.product = product
        self.story = story
        self.calendar = calendar
        self.plane = Plane(settings=settings, product=product, registry=MlflowRegistry(settings.mlflow_url))
        self.dagster = Dagster(f"http://127.0.0.1:{settings.ports.dagster}")
        self.asked = Asked()
        self.dataset = ""

    def start(self) -> None:
        """Start every part."""
        facts = lifecycle.up(self.settings, only=[], say=self.story.tell)
        for name, link in facts["links"].items():
            status = httpx.get(link, follow_redirects=True, timeout=30).status_code
            self.story.tell(f"{name:<14} {link}  ({status})")
            self.story.expect(status == 200, f"{name} at {link} answered {status}, wanted 200")
        self.story.facts["links"] = facts["links"]

    def load(self, stretch: Stretch, *, planted: bool) -> None:
        """Bulk-load a stretch of history and backfill the features over it, as runs of Dagster."""
        planted_from = format_us(self.calendar.planted_from_us) if planted else None
        steps: dict[str, Any] = {
            f"features__{v.online_name}": {"config": stretch.config} for v in self.product.domain.views
        }
        steps["lake__events"] = {"config": {**stretch.config, "planted_from": planted_from}}
        self._run("load_history", stretch.months, {"ops": steps})
        rows = self.plane.lake.scan("events").select(pl.len()).collect().item()
        self.story.tell(f"the lake has {rows:,} events")

    def train(self) -> int:
        """Train v1 and return the version that passed the gate."""
        self._run(f"train_{self.product.name}", None, {})
        self.dataset = str(self.dagster.metadata([self.product.name, "training_set"])["dataset"])
        candidate = self.plane.registry.alias(self.product.name, CANDIDATE)
        if candidate is None:
            raise PermanentFailure("the gate refused v1; see the run's metadata in Dagster")
        self.story.tell(f"gate passed: version {candidate.version} has the alias {CANDIDATE!r}")
        return candidate.version

    def promote(self, version: int, *, why: str = "a version that passed the gate is promoted") -> None:
        """Promote by the demo's stated policy."""
        self.plane.registry.set_alias(self.product.name, CHAMPION, version)
        self.story.tell(f"policy of the demo: {why}; champion = {version}")

    def release(self, version: int) -> None:
        """Wait until the release guard serves the version."""
        self.plane.wait_until_live(version, tell=self.story.tell)

    def stream(self, stretch: Stretch, *, planted: bool) -> None:
        """Stream a stretch in lock-step and ask for a prediction about everything."""
        planted_from = self.calendar.planted_from_us if planted else None
        report = self.plane.stream(stretch, planted_from_us=planted_from)
        self.asked.in_lock_step += report.asked
        self.asked.failed += report.failed
        self.story.tell(
            f"{report.events_accepted:,} of {report.events_sent:,} events accepted; {report.asked:,} predictions asked, "
            f"{report.failed} failed; {report.steps} steps of 15 minutes"
        )
        self.story.expect(report.events_refused == 0, f"{report.events_refused} events of {stretch} were refused")
        # What is loaded in bulk next is computed from what the lake holds: it must hold the whole stretch by then.
        ledger = self.plane.settled_ledger(predictions=self.asked.in_lock_step - self.asked.failed)
        self.story.expect(ledger.balanced, f"the lake did not catch up with {stretch}: {ledger.facts(limit=5)}")

    def bad_input(self, ask: Ask) -> None:
        """Show what becomes of bad input: a clear answer, a letter, nothing lost."""
        history = self.product.domain.load_history
        assert history is not None
        start_us = self.calendar.july.until_us - HOUR_US
        sample = next(e for e in history().iter_events(start_us, self.calendar.july.until_us) if "dest" in e.data)
        for what, status, detail in self.plane.send_bad_input(sample):
            self.story.tell(f"{what}: {status} {detail}")
        body = json.dumps({**ask.body, "dest": "XXX", "as_of": format_us(ask.as_of_us)})
        door = f"{self.settings.load_balancer_url}/v1/{self.product.name}/predict"
        answer = httpx.post(door, content=body, headers={"content-type": "application/json"}, timeout=10)
        self.story.tell(f"a prediction to an unknown airport: {answer.status_code} {answer.json().get('detail')}")
        self.asked.refused_by_hand += 1

    def show_curl(self, ask: Ask) -> None:
        """Print a call anyone can repeat, and its real answer."""
        body = json.dumps({**ask.body, "as_of": format_us(ask.as_of_us)})
        door = f"{self.settings.load_balancer_url}/v1/{self.product.name}/predict"
        self.story.tell(f"curl -s {door} -H 'content-type: application/json' -d '{body}'")
        answer = httpx.post(door, content=body, headers={"content-type": "application/json"}, timeout=10)
        self.story.tell(answer.text)
        self.asked.by_hand += 1
        self.story.expect(answer.status_code == 200, f"the curl was answered {answer.status_code}")

    def score(self, stretch: Stretch) -> None:
        """Batch-score a stretch with the live version, by the code that serves."""
        step = f"{self.product.name}__predictions"
        weeks = week_keys(stretch, zone=self.product.drift.zone)
        self._run(f"score_batch_{self.product.name}", weeks, {"ops": {step: {"config": stretch.config}}})

    def monitor(self) -> list[dict[str, Any]]:
        """Judge all whole mature weeks; print and return every one."""
        self._run(f"monitor_{self.product.name}", None, {})
        weeks = self.plane.lake.read(monitoring_table(self.product).name).sort("week").to_dicts()
        for week in weeks:
            planted = f"planted {week['planted']}" if week["planted"] else "natural"
            self.story.tell(
                f"week of {week['week']:%Y-%m-%d} ({planted}, n={week['rows']}): divergence {week['divergence']:.3f} "
                f"(limit {week['limit_divergence']:.3f}), excess log loss {week['excess_log_loss']:+.3f} "
                f"(limit {week['limit_excess_log_loss']:.3f}), log loss {week['log_loss']:.3f}, gap {week['calibration_gap']:+.3f}, "
                f"AP {week['average_precision']:.3f} {('-> warns: ' + week['warnings']) if week['warnings'] else ''}"
            )
        return weeks

    def retrain(self) -> tuple[str | None, str]:
        """Wait for the sensor's run; return its id and how it ended, or None when the decision was to hold."""
        decision = self.plane.lake.read(decisions_table(self.product).name).sort("decided_at").row(-1, named=True)
        self.story.tell(f"decision: {decision['decision']}: {decision['reason']}")
        if decision["decision"] != "retrain":
            return None, decision["reason"]
        run = self.dagster.wait_for(f"train_{self.product.name}", tag="retrain/reason", timeout_s=RUN_TIMEOUT_S)
        self.story.tell(
            f"run {run.run_id[:8]} was started by the sensor; tag retrain/reason: {run.tags['retrain/reason']}"
        )
        return run.run_id, run.status if run.succeeded else self.dagster.failure(run.run_id)

    def _run(self, job: str, partitions: tuple[str, str] | None, config: dict[str, Any]) -> str:
        run = self.dagster.launch_and_wait(job, timeout_s=RUN_TIMEOUT_S, run_config=config, partitions=partitions)
        seconds = (run.ended_s or 0) - (run.started_s or 0)
        self.story.tell(f"run {run.run_id[:8]} of {job}: {run.status} in {seconds:.0f} s")
        return run.run_id


def tell_demo(settings: Settings, *, product: str | None, hours: int, force_rollout: bool, say: Say) -> Story:
    """Tell the whole demo and return it with its figures; a failure of a part ends it with that part's error."""
    chosen = find_product(product) if product else next(iter(all_products().values()))
    story, calendar = Story(say), demo_calendar(hours=hours)
    plot = Plot(settings, chosen, story, calendar)
    with story.step("start", "Start the stack"):
        plot.start()
    with story.step("load_history", f"Load history in bulk, {calendar.history}, and backfill the features"):
        plot.load(calendar.history, planted=False)
    with story.step("train_v1", "Train v1, judge it, register it"):
        v1 = plot.train()
        plot.promote(v1)
    with story.step("release_v1", "Bootstrap the feature job at the end of history, and serve v1"):
        plot.plane.start_stream_at(calendar.july.after_us, tell=story.tell)
        plot.release(v1)
    with story.step("stream_july", f"Stream {calendar.july}, with a prediction for every flight"):
        plot.stream(calendar.july, planted=False)
    last = plot.plane.asks(calendar.july)[-1]
    with story.step("bad_input", "Ask by hand, and send bad input"):
        here = Ask(as_of_us=calendar.july.until_us, body=last.body)
        plot.show_curl(here)
        plot.bad_input(here)
    with story.step("load_between", f"Load {calendar.between} in bulk and score it with v1"):
        plot.load(calendar.between, planted=False)
        plot.score(calendar.between)
        plot.plane.start_stream_at(calendar.september.after_us, tell=story.tell)
    with story.step("stream_september", f"Stream {calendar.september} with a planted, labelled change"):
        plot.stream(calendar.september, planted=True)
    with story.step("load_after", f"Load {calendar.after} with the change and score it with v1"):
        plot.load(calendar.after, planted=True)
        plot.score(calendar.after)
    with story.step("monitor", "Judge every whole mature week"):
        weeks = plot.monitor()
    with story.step("retrain", "Retrain if the decision says so"):
        run_id, ended = plot.retrain()
    with story.step("release_v2", "Release v2 under load, if the gate lets it"):
        versions = release_v2(plot, v1=v1, ended=ended, force=force_rollout)
    with story.step("reckon", "Read the books: ledger, parity, quality"):
        reckon(story, plot.plane, plot.asked, v1=v1, dataset=plot.dataset, weeks=weeks)
    story.facts |= {"retrain_run_id": run_id, "versions_live": versions}
    close(story)
    return story


def release_v2(plot: Plot, *, v1: int, ended: str, force: bool) -> list[int]:
    """Promote and release the newest candidate under open-loop load; say why not when it is held."""
    story, plane = plot.story, plot.plane
    candidate = plane.registry.alias(plot.product.name, CANDIDATE)
    policy = {}
    if candidate is None or candidate.version == v1:
        story.tell(f"held: {ended}")
        if not force:
            return [v1]
        story.tell("--force-rollout: v1 is registered again as v2 to show the release")
        candidate = plane.register_again(v1)
        policy = {"why": "--force-rollout promotes what the gate has not passed again"}
    asks = [
        Ask(as_of_us=plot.calendar.september.until_us, body=ask.body)
        for ask in plane.asks(plot.calendar.september)[-200:]
    ]
    with plane.under_load(asks) as load:
        plot.promote(candidate.version, **policy)
        plot.release(candidate.version)
    plot.asked.under_load += load.offered
    plot.asked.failed += load.failed
    story.tell(f"under load: {load.offered} requests offered, {load.failed} failed, by version {load.by_version}")
    plot.show_curl(asks[-1])
    return [v1, candidate.version]
