"""A drive on a running stack, start to verdict: what every test of the event plane does around its own faults."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from headway.adapters.kafka_publisher import KafkaPublisher
from headway.clock import monotonic_s
from headway.ledger import Books
from headway.settings import Settings
from orchestration.chaos.driver import TICK_STEP_US, Drive, Driver, Schedule
from orchestration.chaos.faults import Injector
from orchestration.chaos.journal import Journal, read_journal
from orchestration.chaos.load import Send
from orchestration.chaos.quiescence import books_at_rest, read_raw_letters
from orchestration.chaos.reconcile import Verdict, reconcile
from orchestration.chaos.report import Trial
from orchestration.chaos.stack import processes_of
from streaming.accounts import open_stores, read_books

# Sends that were acknowledged include repeats of an event, which count once.
_REPEATS_TOO = 1.05
_POLL_S = 0.5
_PROVEN_WITHIN_S = 60.0
_TICKED_WITHIN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Running:
    """A drive under way and what disturbs it; times are counted from ``begun_s``."""

    settings: Settings
    trial: Trial
    driver: Driver
    drive: Drive
    injector: Injector
    journal: Journal
    begun_s: float

    def wait_until(self, at_s: float) -> None:
        """Return at this time of the drive."""
        time.sleep(max(0.0, self.begun_s + at_s - monotonic_s()))

    def go_on_until(self, least_acked: int, *, and_also: Callable[[], bool] = lambda: True) -> None:
        """Keep the load on until so many events are acknowledged and ``and_also``, or the plan is through."""
        while self.drive.sending and not (self.driver.acked >= least_acked * _REPEATS_TOO and and_also()):
            time.sleep(_POLL_S)

    @property
    def end_us(self) -> int:
        """The tick after everything that was sent."""
        return (self.driver.reached_us // TICK_STEP_US + 1) * TICK_STEP_US


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a drive came to; ``everything`` are the books with what the drive did not send."""

    journal: pl.DataFrame
    everything: Books
    verdict: Verdict


@contextmanager
def load_on(settings: Settings, trial: Trial, sends: Sequence[Send], schedule: Schedule) -> Iterator[Running]:
    """Drive while the body runs; afterwards wait for the last answers, for every fault's proof, and tick to the end."""
    journal = Journal(settings.state / "journal.jsonl")
    publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap, delivery_timeout_s=5.0)
    injector = Injector(lambda: processes_of(settings), trial.say)
    try:
        driver = Driver(settings.load_balancer_url, journal, ticker=publisher)
        drive = Drive(driver, sends, schedule)
        running = Running(
            settings=settings,
            trial=trial,
            driver=driver,
            drive=drive,
            injector=injector,
            journal=journal,
            begun_s=monotonic_s(),
        )
        drive.start()
        try:
            yield running
        finally:
            drive.stop()
            journal.close()
        injector.wait_until_proven(within_s=_PROVEN_WITHIN_S)
        driver.tick_to(running.end_us, within_s=_TICKED_WITHIN_S)
    finally:
        injector.close()
        publisher.close()


def judge(running: Running, *, at_rest: bool = True, leave_out: pl.DataFrame | None = None) -> Judged:
    """Wait until the plane is at rest, or take it as it stands, and reconcile it with the journal.

    ``leave_out`` holds ``raw_partition`` and ``raw_offset`` of records that others wrote.
    """
    settings, say = running.settings, running.trial.say
    say("settling" if at_rest else "judging without rest")
    with open_stores(bootstrap=settings.kafka_bootstrap, lake=settings.lake, search_url=settings.search_url) as stores:
        books = books_at_rest(stores, say=say) if at_rest else read_books(stores)
        raw_letters = read_raw_letters(stores.log)
    journal = read_journal(running.journal.path)
    own = books if leave_out is None else _without(books, leave_out.select("raw_partition", "raw_offset"))
    return Judged(journal=journal, everything=books, verdict=reconcile(journal, own, raw_letters))


def _without(books: Books, places: pl.DataFrame) -> Books:
    def rest(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.join(places, on=places.columns, how="anti", maintain_order="left")

    return Books(
        raw=rest(books.raw),
        enriched=rest(books.enriched),
        letters=rest(books.letters),
        lake=rest(books.lake),
        search=None if books.search is None else rest(books.search),
        lost_files=books.lost_files,
    )
