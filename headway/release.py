"""Releases as a pure state machine: what people wish, what is served, and the one release that leads from here to there.

``champion`` is the wish, ``live`` is what the weights say (SEMANTICS S15, S16). Somebody else ticks: it reports the wish
(`wished`), does what the phase asks for, and reports what came of it (`advanced`, `delayed`, `refused`). Nothing here
knows a load balancer, a cluster, a registry or a clock.

What bites: every effect may have happened without being recorded, since a controller can die between the two. So each
phase's work must be harmless to repeat, and a result counts only for the very release and phase it was made for.

    starting -> proving -> registered -> switched -> draining -> done
       |           |            |
       '-----------+------------'--> undoing -> failed | superseded          held: waits, with a reason, to go on
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from headway.clock import SECOND_US

Colour = Literal["blue", "green"]
# What the release has reached; the work it asks for next:
#   starting: start the application     proving: replicas prove themselves, join at weight 0, pass the balancer's check
#   registered: switch the weights      switched: tell the registry what is live
#   draining: take the old version out  undoing: weights back, take the new version out
Phase = Literal["starting", "proving", "registered", "switched", "draining", "done", "undoing", "failed", "superseded"]
State = Literal[Phase, "held"]

_NEXT: Mapping[Phase, Phase] = {
    "starting": "proving",
    "proving": "registered",
    "registered": "switched",
    "switched": "draining",
    "draining": "done",
}
# Until the weights are switched, going back is shorter than going on.
_UNDOABLE: tuple[Phase, ...] = ("starting", "proving", "registered")
_ENDED: tuple[Phase, ...] = ("done", "failed", "superseded")

_FIRST_RETRY_US = 2 * SECOND_US
# Longer waits save nothing, and S15 allows a changed wish 60 s.
_LONGEST_RETRY_US = 30 * SECOND_US


@dataclass(frozen=True, kw_only=True)
class PinnedVersion:
    """A registry version and the hash of its model's bytes."""

    version: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A model version behind one of the product's two backends."""

    model: PinnedVersion
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class Release:
    """One way from what was live to what was wished.

    Attributes:
        number: counts the product's releases.
        old: what the weights pointed to before the switch; taken out while draining.
        cause: why it was begun.
        reason: why it waits, or why it is undone.
        retry_at_us: set while it waits: when the phase's work may be tried again.
        failed: while undoing, whether it ends as failed or as superseded.
    """

    number: int
    target: Placed
    phase: Phase
    cause: str
    old: Placed | None = None
    reason: str = ""
    attempts: int = 0
    retry_at_us: int | None = None
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One line of the release table."""

    at_us: int
    product: str
    release: int
    version: int | None
    digest: str
    before: State | None
    after: State
    reason: str
    cause: str


@dataclass(frozen=True, kw_only=True)
class ProductState:
    """Everything known about one product's releases. ``hold`` says why nothing is done about the wish."""

    product: str
    wish: PinnedVersion | None = None
    live: Placed | None = None
    release: Release | None = None
    hold: str = ""
    vetoes: Mapping[str, str] = field(default_factory=dict)

    @property
    def open_release(self) -> Release | None:
        """The release that has not ended."""
        return None if self.release is None or self.release.phase in _ENDED else self.release

    @property
    def state(self) -> State | None:
        """The one word for it; None before the first wish."""
        if self.hold or (self.open_release is not None and self.open_release.retry_at_us is not None):
            return "held"
        return None if self.release is None else self.release.phase

    @property
    def reason(self) -> str:
        """Why it is held, undone or failed; empty otherwise."""
        return self.hold or ("" if self.release is None else self.release.reason)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A new state and what to record about getting there; ``transitions`` is empty when nothing changed."""

    state: ProductState
    transitions: tuple[Transition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What the load balancer should do for a product: the version behind each backend, and which of them is asked.

    ``serving`` is None before the first switch: a first version must be proven too before anybody is sent to it.
    """

    blue: PinnedVersion | None
    green: PinnedVersion | None
    serving: Colour | None

    def behind(self, colour: Colour) -> PinnedVersion | None:
        """The version behind a backend."""
        return self.blue if colour == "blue" else self.green


def wished(state: ProductState, wish: PinnedVersion | None, *, at_us: int) -> Change:
    """Return the state under this wish; None = the alias is deleted. Call it at every tick.

    A newer wish undoes an unfinished release first, a switched one is finished first; a vetoed digest is held, and
    so is a deleted alias, while what is live goes on serving (S15, S16).
    """
    state = replace(state, wish=wish)
    release = state.open_release
    if release is not None:
        if release.phase not in _UNDOABLE or wish == release.target.model:
            return Change(state=replace(state, hold=""))
        why = "the champion alias is deleted" if wish is None else f"superseded by version {wish.version}"
        undoing = replace(release, phase="undoing", reason=why, retry_at_us=None, attempts=0)
        return _recorded(state, replace(state, release=undoing, hold=""), at_us=at_us)
    if wish is None:
        return _held(state, "" if state.live is None else "the champion alias is deleted", at_us=at_us)
    if state.live is not None and wish == state.live.model:
        return Change(state=replace(state, hold=""))
    if wish.digest in state.vetoes:
        return _held(state, f"version {wish.version} is vetoed: {state.vetoes[wish.digest]}", at_us=at_us)
    colour: Colour = "green" if state.live is not None and state.live.colour == "blue" else "blue"
    return _begun(state, Placed(model=wish, colour=colour), cause="champion alias", at_us=at_us)


def lost(state: ProductState, *, reason: str, at_us: int) -> Change:
    """Return the state after nobody answers for the live version: it is started again where it was."""
    if state.live is None or state.open_release is not None:
        return Change(state=state)
    return _begun(state, state.live, cause=f"live version lost: {reason}", at_us=at_us)


def due(state: ProductState, *, at_us: int) -> Release | None:
    """Return the open release when its phase's work should be done now; None while it waits, or without one."""
    release = state.open_release
    if release is None or (release.retry_at_us is not None and at_us < release.retry_at_us):
        return None
    return release


def advanced(state: ProductState, done: Release, *, at_us: int) -> Change:
    """Return the state after the work of ``done``'s phase succeeded."""
    release = _current(state, done)
    if release is None:
        return Change(state=state)
    if release.phase == "undoing":
        after = replace(release, phase="failed" if release.failed else "superseded", retry_at_us=None)
        return _recorded(state, replace(state, release=after), at_us=at_us)
    after = replace(release, phase=_NEXT[release.phase], reason="", attempts=0, retry_at_us=None)
    live = state.live
    if after.phase == "switched":
        after = replace(after, old=None if live == release.target else live)
        live = release.target
    return _recorded(state, replace(state, release=after, live=live), at_us=at_us)


def delayed(state: ProductState, tried: Release, *, reason: str, at_us: int) -> Change:
    """Return the state after the work could not be done now: held with the reason, tried again after a growing wait.

    What was on its way to the switch starts over, since nobody knows what is left of it; starting what runs is harmless.
    """
    release = _current(state, tried)
    if release is None:
        return Change(state=state)
    wait_us = min(_FIRST_RETRY_US * 2**release.attempts, _LONGEST_RETRY_US)
    attempts = min(release.attempts + 1, 16)
    phase: Phase = "starting" if release.phase in _UNDOABLE else release.phase
    after = replace(release, phase=phase, reason=reason, attempts=attempts, retry_at_us=at_us + wait_us)
    same = release.retry_at_us is not None and release.reason == reason
    change = _recorded(state, replace(state, release=after), at_us=at_us)
    return Change(state=change.state) if same else change


def refused(state: ProductState, tried: Release, *, reason: str, at_us: int) -> Change:
    """Return the state after the version proved unfit: its digest is vetoed, then everything goes back (S16).

    A live version that cannot be started again is not vetoed, as there is nothing to go back to: it is tried again.
    """
    release = _current(state, tried)
    if release is None:
        return Change(state=state)
    if state.live == release.target or release.phase not in _UNDOABLE:
        return delayed(state, tried, reason=reason, at_us=at_us)
    after = replace(release, phase="undoing", reason=reason, failed=True, retry_at_us=None, attempts=0)
    vetoes = {**state.vetoes, release.target.model.digest: reason}
    return _recorded(state, replace(state, release=after, vetoes=vetoes), at_us=at_us)


def overridden(state: ProductState, digest: str) -> ProductState:
    """Return the state with the veto on a digest lifted: somebody with a reason insists."""
    return replace(state, vetoes={d: why for d, why in state.vetoes.items() if d != digest})


def traffic(state: ProductState) -> Traffic:
    """Return what the load balancer should do in this state; it depends on nothing else, so it can be set again any time.

    A version joins from ``proving`` on and is asked from ``switched`` on. What is draining or undone is not listed: its
    servers are taken out.
    """
    placed: dict[Colour, PinnedVersion] = {}
    if state.live is not None:
        placed[state.live.colour] = state.live.model
    release = state.open_release
    if release is not None and release.phase in ("proving", "registered"):
        placed[release.target.colour] = release.target.model
    serving = None if state.live is None else state.live.colour
    return Traffic(blue=placed.get("blue"), green=placed.get("green"), serving=serving)


def leaving(release: Release, live: Placed | None) -> Placed | None:
    """Return the version whose servers and application a draining or undoing release takes out, if any."""
    if release.phase == "draining":
        return release.old
    return release.target if release.phase == "undoing" and release.target != live else None


def _begun(state: ProductState, target: Placed, *, cause: str, at_us: int) -> Change:
    number = 1 if state.release is None else state.release.number + 1
    release = Release(number=number, target=target, phase="starting", cause=cause)
    return _recorded(state, replace(state, release=release, hold=""), at_us=at_us)


def _held(state: ProductState, reason: str, *, at_us: int) -> Change:
    if reason == state.hold:
        return Change(state=state)
    after = replace(state, hold=reason)
    return _recorded(state, after, at_us=at_us) if reason else Change(state=after)


def _current(state: ProductState, seen: Release) -> Release | None:
    release = state.open_release
    if release is None or (release.number, release.phase) != (seen.number, seen.phase):
        return None
    return release


def _recorded(before: ProductState, after: ProductState, *, at_us: int) -> Change:
    release = after.release
    model = after.wish or (after.live.model if after.live else None)
    if release is not None and not after.hold:
        model = release.target.model
    line = Transition(
        at_us=at_us,
        product=after.product,
        release=0 if release is None else release.number,
        version=None if model is None else model.version,
        digest="" if model is None else model.digest,
        before=before.state,
        after=after.state or "held",
        reason=after.reason,
        cause="" if release is None else release.cause,
    )
    return Change(state=after, transitions=(line,))
