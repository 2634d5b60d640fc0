"""The chaos tests there are: where each lives, what it promises, and the bugs that turn it red. One entry per test."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from headway.errors import ContractViolation
from orchestration.chaos.report import Report, Trial


@dataclass(frozen=True)
class Entry:
    """A test by name; ``target`` is ``module:function`` and is imported only when the test runs.

    ``mutants`` are names the test understands; see `orchestration.chaos.mutant`.
    """

    name: str
    target: str
    promise: str
    mutants: tuple[str, ...]

    def load(self) -> Callable[[Trial], Report]:
        """Import the test."""
        module, _, function = self.target.partition(":")
        run: Callable[[Trial], Report] = getattr(import_module(module), function)
        return run


TESTS = (
    Entry(
        "R1",
        "orchestration.chaos.r1:run",
        "random SIGKILLs over the event plane lose, double, invent and reorder nothing",
        ("ack-before-delivery", "commit-before-write", "letter-swallowed"),
    ),
    Entry(
        "R2",
        "orchestration.chaos.r2:run",
        "leaders and controllers killed, stopped and restarted lose and double nothing acknowledged",
        ("acks-1",),
    ),
    Entry(
        "R3",
        "orchestration.chaos.r3:run",
        "with two of three brokers gone nothing is acknowledged, and every refusal is quick and says so",
        ("acks-1", "ack-before-delivery"),
    ),
    Entry(
        "R5",
        "orchestration.chaos.r5:run",
        "a storm of joins, leaves, deaths and zombies loses and doubles nothing, under both group protocols",
        ("lake-appends-blindly",),
    ),
    Entry(
        "R6",
        "orchestration.chaos.r6:run",
        "every kind of poison becomes one letter each and holds nobody up; what can be repaired is put back once",
        ("letters-cut", "never-condemned", "poison-skipped"),
    ),
    Entry(
        "R7",
        "orchestration.chaos.r7:run",
        "the Enricher writes each input's outcome exactly once, wherever in its transaction it dies",
        ("offsets-before-outputs",),
    ),
    Entry(
        "R11",
        "orchestration.chaos.r11:run",
        "late, repeated and tied events and two writers leave every key of the online store right",
        ("guard-off", "guard-of-feast", "ties-by-arrival"),
    ),
    Entry(
        "REPLAY",
        "orchestration.chaos.replayed:run",
        "a year through the feature job, killed, rescaled and made again from zero, is what its events say",
        ("expiries-lost", "state-forgotten"),
    ),
    Entry(
        "FRESH",
        "orchestration.chaos.fresh:run",
        "what the Collector accepted is readable online, within 2 s (p99) at half of what the plane can do",
        ("rows-left-out",),
    ),
    Entry(
        "R13",
        "orchestration.chaos.r13:run",
        "replicas, Ray's controller and the feature store are killed under predictions, and nobody notices",
        ("retries-nothing",),
    ),
    Entry(
        "R13-STREAM",
        "orchestration.chaos.r13_stream:run",
        "1, 2 and 4 stream scorers, killed in between, answer each question once by the recorded version; a fifth idles",
        ("scores-in-two-steps", "plan-forgotten"),
    ),
    Entry(
        "LETTERS",
        "orchestration.chaos.letters:run",
        "letters replayed three times, once killed in the middle, put each event into every sink once",
        ("replay-forgets",),
    ),
)


def find_test(name: str) -> Entry:
    """Return a test by name, in any case.

    Raises:
        ContractViolation: there is none of that name.
    """
    for entry in TESTS:
        if entry.name == name.upper():
            return entry
    raise ContractViolation(f"chaos: got {name!r}, wanted one of {', '.join(entry.name for entry in TESTS)}")
