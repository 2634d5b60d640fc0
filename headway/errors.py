"""The five ways Headway fails, one class for each thing a caller does differently.

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
