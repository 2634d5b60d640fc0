"""The slow work of a release, one call for each: fetch and prove the model, start its application, tell the registry, end it.

Each may be repeated: a guard that died half-way does it again. Refuses bytes before they cost anything: hashes and golden
answers are judged here, before Ray starts a process for them. What bites: a model whose views this code no longer
defines is not at fault (`DefinitionsDiffer`), nor one whose views have no past yet (`ViewsNotReady`); a veto would outlive
the code, or the wait, that caused it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.adapters.scaling_table import scaling_file
from headway.contracts import Reference
from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from headway.features.readiness import ViewState, unready
from headway.manifest import MANIFEST_FILE, decode_manifest
from headway.model_files import MODELS_FOLDER, fetch_model
from headway.product import Product
from headway.registry import LIVE, ModelRegistry
from headway.release import PinnedVersion
from headway.replica_scaling import ReplicaPolicy
from headway.settings import Settings
from serving.balancer import CHECK_INTERVAL_MS, application_name, replica_registry
from serving.deployment import Order, local_cluster, run_order
from serving.predict import load_predictor
from serving.traffic import forget_application

PREDICT_FACTORY = "serving.predict:build"
# Ray needs 9-12 s for two replicas on an idle machine and 26 s on a busy one.
START_TIMEOUT_S = 90.0
_RETIRE_TIMEOUT_S = 40.0


class DefinitionsDiffer(TransientFailure):
    """The running code computes other inputs than the model wants; released once the code fits."""


class ViewsNotReady(TransientFailure):
    """A view the version reads was not backfilled, or nothing says up to when it is known; released once it is."""


@dataclass(frozen=True, kw_only=True)
class ReleaseSteps:
    """The slow steps on this machine.

    Attributes:
        view_states: what the online store knows of views, by their names there.
        replicas: of each version, at least; load brings more, as settings allow.
        factory: what a replica is built by; tests bring another.
    """

    settings: Settings
    registry: ModelRegistry
    products: dict[str, Product]
    references: dict[str, Reference]
    replicas: int
    view_states: Callable[[Sequence[str]], Mapping[str, ViewState]]
    factory: str = PREDICT_FACTORY

    def start(self, product: str, model: PinnedVersion) -> None:
        """Have proven replicas of a version, which receive no request yet.

        Raises:
            ContractViolation: the bytes are not what was registered, or a golden answer is wrong.
            PermanentFailure: replicas cannot start.
            TransientFailure: registry or cluster is away, or the code does not fit the model.
        """
        folder = self._fetched(product, model)
        settings = self.settings
        order = Order(
            action="start",
            cluster=local_cluster(settings),
            application=application_name(product, model),
            factory=self.factory,
            arguments={
                "product": product,
                "version": str(model.version),
                "folder": str(folder),
                "online_store": settings.online_store,
                "feast_project": settings.feast_project,
                "kafka": settings.kafka_bootstrap,
                "rows": str(settings.predict_rows),
                "cache_entries": str(settings.predict_cache),
            },
            registry=str(replica_registry(settings)),
            # Two checks of the load balancer, and a little: by then it sends nothing any more.
            drain_s=2.5 * CHECK_INTERVAL_MS / 1000,
            policy=ReplicaPolicy(
                least=self.replicas, most=max(self.replicas, settings.replicas_most or os.cpu_count() or 1)
            ),
            decisions=str(scaling_file(settings.state)),
            timeout_s=START_TIMEOUT_S,
        )
        run_order(order, timeout_s=START_TIMEOUT_S)

    def check_views(self, product: str) -> None:
        """Refuse to go on before every view of the product may serve.

        A store that is away says nothing about views, and holds nothing up: answers are degraded until it is back (S10).

        Raises:
            ViewsNotReady: names every view that lacks its past, and the way out.
        """
        views = self.products[product].feature_views.values()
        try:
            states = self.view_states([view.online_name for view in views])
        except TransientFailure:
            return
        except (ContractViolation, PermanentFailure) as error:
            # Neither is the model's fault, and both would be a veto on it.
            raise ViewsNotReady(f"{product}: its views could not be judged: {error}") from error
        if reasons := unready(views, states):
            raise ViewsNotReady(f"{product}: {'; '.join(f'view {name} {why}' for name, why in reasons.items())}")

    def announce(self, product: str, model: PinnedVersion) -> None:
        """Set the alias ``live``; the weights are already there."""
        self.registry.set_alias(product, LIVE, model.version)

    def retire(self, product: str, model: PinnedVersion) -> None:
        """End a version's application, whose servers have left the load balancer."""
        application = application_name(product, model)
        order = Order(action="retire", cluster=local_cluster(self.settings), application=application)
        run_order(order, timeout_s=_RETIRE_TIMEOUT_S)
        forget_application(replica_registry(self.settings), application)

    def _fetched(self, product: str, model: PinnedVersion) -> Path:
        models = self.settings.state / MODELS_FOLDER
        folder = fetch_model(self.registry, models, product=product, version=model.version, digest=model.digest)
        self._check_definitions(product, folder)
        found = load_predictor(self.products[product], self.references[product], folder).digest
        if found != model.digest:
            raise ContractViolation(
                f"{product} version {model.version}: digest {found}, the registry says {model.digest}"
            )
        return folder

    def _check_definitions(self, product: str, folder: Path) -> None:
        manifest = decode_manifest((folder / MANIFEST_FILE).read_bytes())
        try:
            manifest.verify_definitions(
                product=product,
                view_digests=self.products[product].view_digests,
                reference_version=self.references[product].version,
            )
        except ContractViolation as error:
            raise DefinitionsDiffer(str(error)) from error
