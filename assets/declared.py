"""Declaring assets where Dagster's own words do not fit: what is beta, and what its annotations cannot say.

``backfill_policy`` is marked beta, and saying so on every load would only teach people to ignore warnings.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

if TYPE_CHECKING:
    # What an asset returns that writes its own tables: metadata and no value.
    Materialized: TypeAlias = dg.MaterializeResult[None]
else:
    # Dagster compares an asset's annotation with the bare class.
    Materialized = dg.MaterializeResult


@contextmanager
def without_beta_warning() -> Iterator[None]:
    """Silence Dagster's beta warnings, and no other, for one declaration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield
