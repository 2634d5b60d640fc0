"""Whether a view version may serve: backfilled as its definition says, and known up to some instant (SEMANTICS S11, S20).

The stream gives a new version a watermark at its first tick, while its windows still lack everything before: a mean of
24 hours over five minutes. So a watermark alone proves nothing, and the bootstrap leaves a mark beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headway.features.definitions import FeatureView
from headway.features.static import StaticView


@dataclass(frozen=True, kw_only=True)
class ViewState:
    """What the online store knows of a view version.

    Attributes:
        watermark_us: all events up to then are in; None until every partition has reported.
        bootstrapped_us: the instant its past was computed up to; None when it never was.
        digest: hash of the definition that computed it.
    """

    watermark_us: int | None
    bootstrapped_us: int | None
    digest: str | None


NEVER_SEEN = ViewState(watermark_us=None, bootstrapped_us=None, digest=None)


def unready(views: Iterable[FeatureView | StaticView], states: Mapping[str, ViewState]) -> dict[str, str]:
    """Return why views may not serve yet, by qualified name; empty when all may.

    Args:
        views: the views something wants to serve from.
        states: by online name; a view that is not in it was never seen.
    """
    reasons = {view.qualified: _reason(view, states.get(view.online_name, NEVER_SEEN)) for view in views}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _reason(view: FeatureView | StaticView, state: ViewState) -> str | None:
    mend = f"headway features bootstrap --view {view.qualified}"
    if isinstance(view, StaticView):
        mend = "headway features refresh"
    if state.bootstrapped_us is None:
        return f"was never backfilled: {mend}"
    if state.digest != view.digest:
        return f"was backfilled as {state.digest}, wanted {view.digest}: {mend}"
    if state.watermark_us is None:
        return "is backfilled and has no watermark: not every partition has reported; is the feature job running?"
    return None
