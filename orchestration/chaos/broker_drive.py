"""One drive over a cluster's raw log: the load, its journal, and what stands in the log afterwards."""

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from uuid import uuid4

import polars as pl

from headway.adapters.kafka_reader import KafkaReader
from headway.settings import LOOPBACK, Settings
from headway.topics import EVENTS_RAW
from orchestration.chaos.broker_verdict import Account, settle_drive
from orchestration.chaos.driver import Drive, Driver, Schedule
from orchestration.chaos.journal import Journal, read_journal
from orchestration.chaos.load import plan_sends
from orchestration.chaos.report import Trial

_KEYS = 64


class LogDrive:
    """A drive that is under way; ``stop`` it before asking what became of it."""

    def __init__(self, settings: Settings, trial: Trial, schedule: Schedule, *, longest_s: float, folder: Path) -> None:
        # A cluster that is tried twice must not take the first trial's events for repeats of its own.
        self._run = f"{trial.test}-{trial.seed}-{uuid4().hex[:6]}"
        self._settings = settings
        self._journal = Journal(folder / "journal.jsonl")
        self._driver = Driver(door(settings), self._journal, ticker=None)
        offered = round(schedule.events_per_s * longest_s)
        plan = plan_sends(run=self._run, keys=_KEYS, mix={}, generator=random.Random(trial.seed))
        self._drive = Drive(self._driver, list(islice(plan, offered)), schedule)

    def start(self) -> None:
        """Begin to send."""
        self._drive.start()

    @property
    def running(self) -> bool:
        """Whether there is more to send."""
        return self._drive.sending

    @property
    def acked(self) -> int:
        """How many events were acknowledged so far."""
        return self._driver.acked

    @property
    def slip_s(self) -> float:
        """How late a send left at worst."""
        return self._driver.slip_s

    def stop(self) -> None:
        """Send nothing more, and wait for what is under way."""
        self._drive.stop()

    def told(self) -> pl.DataFrame:
        """Give the journal, one row a send."""
        self._journal.close()
        return read_journal(self._journal.path)

    def settle(self, journal: pl.DataFrame) -> Account:
        """Compare the journal with every record of this drive in the raw log."""
        return settle_drive(journal, self._written())

    def _written(self) -> Iterator[str]:
        for message in KafkaReader(bootstrap=self._settings.kafka_bootstrap).read(EVENTS_RAW):
            found = next((value.decode() for name, value in message.headers if name == "ce_id"), "")
            if found.startswith(self._run):
                yield found


def door(settings: Settings) -> str:
    """Where the Collector is asked: at itself, as the balancer's second try would hide what it answers."""
    return f"http://{LOOPBACK}:{settings.ports.collector_first}"


@contextmanager
def driving(settings: Settings, trial: Trial, schedule: Schedule, *, longest_s: float) -> Iterator[LogDrive]:
    """Drive for the length of the block; the journal is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hw-drive-") as folder:
        drive = LogDrive(settings, trial, schedule, longest_s=longest_s, folder=Path(folder))
        drive.start()
        try:
            yield drive
        finally:
            drive.stop()
