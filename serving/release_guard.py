"""Makes what is live equal to the champion: ``python -m serving.release_guard``, one supervised process.

Every second it reads the champion aliases, asks the pure machine (`headway.release`) what is due, does it, and records
each transition. It owns the release table, the Serve applications and the load balancer's servers; nothing else
changes them. Refuses to forget: everything it knows is in the table, so killing it at any instant costs a second.
What bites: slow steps (Ray, registry) run beside the loop, one per product, and their results count only if the
release is still where it was.
"""

import argparse
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from headway.adapters.release_table import ReleaseTable
from headway.clock import Clock, SystemClock, monotonic_s, to_us
from headway.errors import ContractViolation, HeadwayError, PermanentFailure, TransientFailure
from headway.logs import configure_logging
from headway.registry import CHAMPION, ModelRegistry
from headway.release import (
    Change,
    Phase,
    PinnedVersion,
    ProductState,
    Release,
    advanced,
    delayed,
    due,
    leaving,
    lost,
    refused,
    wished,
)
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from serving.balancer import release_table_path
from serving.release_api import ReleaseApi
from serving.release_steps import ReleaseSteps
from serving.replica import ReplicaServer
from serving.traffic import TrafficControl

TICK_S = 1.0
# While something is under way, a second per phase would be most of a release's time.
BUSY_TICK_S = 0.1
# Ray replaces a killed replica in about 5 s; below that a second start would only get in its way.
LOST_AFTER_S = 8.0
# Ten checks of the load balancer.
PROVE_TIMEOUT_S = 5.0
_LOG = structlog.get_logger()


class Wishes:
    """The champion aliases, read in a thread of their own: a registry that hangs must not stop the loop."""

    def __init__(self, registry: ModelRegistry, products: Sequence[str]) -> None:
        self._registry = registry
        self._products = products
        self._known: dict[str, PinnedVersion | None] = {}
        self.trouble = "not asked yet"

    def poll(self) -> None:
        """Read every alias once."""
        try:
            self._known.update({product: self._champion(product) for product in self._products})
            self.trouble = ""
        except HeadwayError as error:
            if not self.trouble:
                _LOG.warning("registry away", reason=str(error))
            self.trouble = str(error)

    def _champion(self, product: str) -> PinnedVersion | None:
        found = self._registry.alias(product, CHAMPION)
        # A version that Headway did not register has no digest: it will be refused, and the veto must name it alone.
        return (
            None
            if found is None
            else PinnedVersion(
                version=found.version, digest=found.digest or f"version {found.version}, not registered by Headway"
            )
        )

    def known(self) -> Mapping[str, PinnedVersion | None]:
        """What was read last, by product; products never read are not in it."""
        return dict(self._known)


class ReleaseGuard:
    """The loop's body. ``tick`` is the only thread that touches state, table and load balancer."""

    def __init__(
        self, *, steps: ReleaseSteps, traffic: TrafficControl, table: ReleaseTable, wishes: Wishes, clock: Clock
    ) -> None:
        self._steps, self._traffic, self._table, self._wishes, self._clock = steps, traffic, table, wishes, clock
        self._states = {name: ProductState(product=name) for name in steps.products} | table.states()
        self._running: dict[str, tuple[Release, Future[None]]] = {}
        self._since_s: dict[tuple[str, int, Phase], float] = {}
        self._missed_since_s: dict[str, float] = {}
        self._workers = ThreadPoolExecutor(thread_name_prefix="release")
        self._balancer_trouble = ""

    @property
    def busy(self) -> bool:
        """Whether a release is on its way and not waiting."""
        return any(s.open_release is not None and s.state != "held" for s in self._states.values())

    def tick(self) -> None:
        """Do what is due now."""
        wishes = self._wishes.known()
        for product in self._steps.products:
            if product in wishes:
                self._apply(wished(self._states[product], wishes[product], at_us=self._now_us()))
        self._reconcile(self._states)
        for product in self._steps.products:
            self._look_after(product)
            release = due(self._states[product], at_us=self._now_us())
            if product in self._running:
                self._collect(product)
            elif release is not None:
                self._work(product, release)

    def close(self) -> None:
        """Stop; what runs on is done again by the next guard."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _work(self, product: str, release: Release) -> None:
        model = release.target.model
        match release.phase:
            case "starting":
                self._begin(product, release, self._starting(product, release))
            case "proving":
                self._prove(product, release)
            case "registered":
                self._switch(product, release)
            case "switched":
                self._begin(product, release, lambda: self._steps.announce(product, model))
            case _:
                self._take_out(product, release)

    def _starting(self, product: str, release: Release) -> Callable[[], None]:
        """Return the work of starting: what was live may come back over a store that forgot its views, a new one not.

        The first time replicas start while views may still be backfilled; later, starting costs more than asking.
        """
        steps, known = self._steps, self._states[product].live == release.target

        def start() -> None:
            if not known and release.attempts:
                steps.check_views(product)
            steps.start(product, release.target.model)
            if not known:
                steps.check_views(product)

        return start

    def _prove(self, product: str, release: Release) -> None:
        fit = self._traffic.fit(product, release.target.colour)
        if self._balancer_trouble:
            self._apply(self._delay(product, release, self._balancer_trouble))
        elif fit >= self._steps.replicas:
            self._apply(advanced(self._states[product], release, at_us=self._now_us()))
        elif self._age_s(product, release) > PROVE_TIMEOUT_S:
            seen = [f"{s.server} {s.status} {s.check}" for s in self._traffic.servers(product, release.target.colour)]
            wanted = f"{fit} of {self._steps.replicas} replicas passed the golden check in {PROVE_TIMEOUT_S:.0f} s"
            self._apply(self._delay(product, release, f"{wanted} ({', '.join(seen) or 'none joined'})"))

    def _switch(self, product: str, release: Release) -> None:
        """Set the weights, see that they are set, and only then record it."""
        change = advanced(self._states[product], release, at_us=self._now_us())
        self._reconcile({**self._states, product: change.state})
        if self._balancer_trouble:
            self._apply(self._delay(product, release, self._balancer_trouble))
        elif self._traffic.asked(product, release.target.colour) >= self._steps.replicas:
            self._apply(change)
        else:
            self._apply(self._delay(product, release, "a new replica stopped answering just before the switch"))

    def _take_out(self, product: str, release: Release) -> None:
        placed = leaving(release, self._states[product].live)
        if placed is None:
            self._apply(advanced(self._states[product], release, at_us=self._now_us()))
        elif self._balancer_trouble:
            self._apply(self._delay(product, release, self._balancer_trouble))
        elif not self._traffic.servers(product, placed.colour):
            self._begin(product, release, lambda: self._steps.retire(product, placed.model))

    def _begin(self, product: str, release: Release, step: Callable[[], None]) -> None:
        self._running[product] = (release, self._workers.submit(step))

    def _collect(self, product: str) -> None:
        release, future = self._running[product]
        if not future.done():
            return
        del self._running[product]
        try:
            future.result()
            change = advanced(self._states[product], release, at_us=self._now_us())
        except TransientFailure as error:
            change = self._delay(product, release, str(error))
        except (ContractViolation, PermanentFailure) as error:
            change = refused(self._states[product], release, reason=str(error), at_us=self._now_us())
        self._apply(change)

    def _look_after(self, product: str) -> None:
        """Start the live version again when nobody answers for it, as after a restart of the cluster."""
        state = self._states[product]
        if state.live is None or self._balancer_trouble or self._traffic.fit(product, state.live.colour):
            self._missed_since_s.pop(product, None)
        elif monotonic_s() - self._missed_since_s.setdefault(product, monotonic_s()) > LOST_AFTER_S:
            self._apply(lost(state, reason="no replica passes the golden check", at_us=self._now_us()))

    def _reconcile(self, states: Mapping[str, ProductState]) -> None:
        try:
            self._traffic.reconcile(states)
            self._balancer_trouble = ""
        except (TransientFailure, PermanentFailure) as error:
            if not self._balancer_trouble:
                _LOG.warning("load balancer not as wanted", reason=str(error))
            self._balancer_trouble = str(error)

    def _delay(self, product: str, release: Release, reason: str) -> Change:
        return delayed(self._states[product], release, reason=reason, at_us=self._now_us())

    def _apply(self, change: Change) -> None:
        product = change.state.product
        if change.state == self._states[product]:
            return
        self._table.record(change)
        self._states[product] = change.state
        for line in change.transitions:
            _LOG.info(
                "release",
                product=product,
                number=line.release,
                version=line.version,
                before=line.before,
                after=line.after,
                reason=line.reason,
                cause=line.cause,
            )

    def _age_s(self, product: str, release: Release) -> float:
        now_s = monotonic_s()
        return now_s - self._since_s.setdefault((product, release.number, release.phase), now_s)

    def _now_us(self) -> int:
        return to_us(self._clock.now())


def run(*, settings: Settings, steps: ReleaseSteps, stop: threading.Event) -> None:
    """Guard releases until told to stop."""
    table = ReleaseTable(release_table_path(settings))
    wishes = Wishes(steps.registry, tuple(steps.products))
    traffic = TrafficControl(settings, steps.products)
    guard = ReleaseGuard(steps=steps, traffic=traffic, table=table, wishes=wishes, clock=SystemClock())
    server = ReplicaServer(ReleaseApi(table, wishes).served(), host=LOOPBACK, port=settings.ports.release)
    server.start()

    def poll() -> None:
        wishes.poll()
        while not stop.wait(TICK_S):
            wishes.poll()

    threading.Thread(target=poll, name="wishes", daemon=True).start()
    try:
        while not stop.wait(BUSY_TICK_S if guard.busy else TICK_S):
            guard.tick()
    finally:
        guard.close()
        server.leave(drain_s=0, timeout_s=3)


def main() -> int:
    """Guard the releases of all products until SIGTERM or SIGINT."""
    from headway.adapters.mlflow import MlflowRegistry
    from headway.adapters.redis_views import OnlineViews
    from products.catalogue import all_products

    parser = argparse.ArgumentParser(prog="python -m serving.release_guard", description=main.__doc__)
    parser.add_argument("--replicas", type=int, default=2, help="of each version; one alone is a gap when it is killed")
    arguments = parser.parse_args()
    configure_logging("release-guard")
    stop = stop_event()
    settings, products = Settings(), all_products()
    steps = ReleaseSteps(
        settings=settings,
        registry=MlflowRegistry(settings.mlflow_url),
        products=products,
        references={name: product.domain.load_reference() for name, product in products.items()},
        replicas=arguments.replicas,
        view_states=OnlineViews(f"redis://{settings.online_store}", settings.feast_project).states,
    )
    run(settings=settings, steps=steps, stop=stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
