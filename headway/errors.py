"""The ways Headway fails, one class for each thing a caller does differently.

A message says what, where, got, wanted, and what to do next.
"""


class HeadwayError(Exception):
    """Any failure Headway explains; catch a subclass, not this one, when you can answer it."""


class InputRejected(HeadwayError):
    """A stranger sent something that will never be accepted as it is; answer 4xx and keep a letter."""


class ContractViolation(HeadwayError):
    """Our own data or definition breaks a promise we made; stop, and fix the producer or the contract."""


class PermanentFailure(HeadwayError):
    """Another attempt cannot succeed; a person has to change something first."""


class TransientFailure(HeadwayError):
    """The same attempt may succeed later; retry within a budget."""


class Overtaken(TransientFailure):
    """Another writer of ours came first, so nothing was written; nobody is down. Read again what is still yours."""


class DependencyDown(TransientFailure):
    """A service of ours that a job needs does not answer; hold the records back and ask again later.

    Raised by a handler or sink for a whole batch. It is never the records' fault, so none of them becomes a letter:
    the runtime rewinds, waits, tries again with a small batch, and counts the records for the breaker (S22).
    """

    def __init__(self, dependency: str, detail: str) -> None:
        super().__init__(f"{dependency} is down: {detail}")
        self.dependency = dependency
