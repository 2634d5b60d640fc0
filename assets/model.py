"""From a checked training set to a registered candidate: fit, judge, and only then a version people can promote.

The fit and its verdict are recorded whatever the verdict says; a refused model ends the run at the gate, so it never
becomes a version. What bites: `dagster-mlflow` opens its run when the Dagster run starts and closes it after the last
step, so a run makes one model, in one process (ADR 0009).
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg

from assets.declared import Materialized
from assets.names import candidate_key, model_key, training_set_key
from assets.pictures import candidate_pictures
from assets.resources import LakeResource, RegistryResource, Tracking
from assets.shown import figures, owners, picture
from assets.tracking import end_tracking
from assets.training import newest_dataset, read_dataset
from headway.candidate import gather_evidence, judged, make_candidate
from headway.commit import COMMIT_TAG, code_commit
from headway.gates import Verdict, judge
from headway.manifest import MANIFEST_FILE, MODEL_FILE, Manifest, encode_manifest
from headway.predictor import Predictor, open_predictor
from headway.product import Product
from headway.registry import CANDIDATE, CHAMPION, ModelRegistry
from headway.training_table import facts_of, part_of

GATE = "gate"
_FOLDER = "model"
_RUN_ID = "mlflow_run_id"


def model_asset(product: Product) -> dg.AssetsDefinition:
    """Return the asset of fitted, judged models; its blocking check is the gate."""

    @dg.asset(
        key=model_key(product),
        deps=[training_set_key(product)],
        check_specs=[dg.AssetCheckSpec(GATE, asset=model_key(product), blocking=True, description=_gate_told(product))],
        hooks={end_tracking},
        description="One LightGBM model per dataset, with the verdict on it, as an MLflow run; text and manifest, no pickle.",
        group_name=product.name,
        owners=owners(product.owner),
        kinds={"lightgbm", "mlflow"},
        metadata={"spec": product.model.name, "spec_digest": product.model.digest},
    )
    def model(
        context: dg.AssetExecutionContext,
        lake: LakeResource,
        registry: RegistryResource,
        mlflow: dg.ResourceParam[Tracking],
    ) -> Materialized:
        dataset = newest_dataset(product, context.instance)
        made = fit_and_judge(product, lake, registry.open(), dataset=dataset)
        run_id = record(mlflow, product, made, dataset=dataset)
        return dg.MaterializeResult(
            metadata={
                _RUN_ID: run_id,
                "dataset": dataset,
                "digest": made.manifest.digest,
                "model_bytes": made.manifest.model_bytes,
                "verdict": dg.MetadataValue.md(made.verdict.table()),
                "passed": made.verdict.passed,
                **figures(made.manifest.metrics),
                **{name: picture(png, title=name) for name, png in made.pictures.items()},
            },
            check_results=[_gate_result(product, made.verdict)],
        )

    return model


def candidate_asset(product: Product) -> dg.AssetsDefinition:
    """Return the asset of the registry version that passed the gate last."""

    @dg.asset(
        key=candidate_key(product),
        deps=[model_key(product)],
        hooks={end_tracking},
        description="The model version with alias `candidate`: one per fitted model that passed the gate.",
        group_name=product.name,
        owners=owners(product.owner),
        kinds={"mlflow"},
    )
    def candidate(context: dg.AssetExecutionContext, registry: RegistryResource) -> Materialized:
        event = context.instance.get_latest_materialization_event(model_key(product))
        assert event is not None  # the model is upstream
        assert event.asset_materialization is not None
        run_id = str(event.asset_materialization.metadata[_RUN_ID].value)
        model, manifest = registry.kept(run_id, folder=_FOLDER)
        opened = registry.open()
        tags = {"headway.verdict": "passed", "dagster.run_id": context.run.run_id, **_commit()}
        version = opened.register(model, manifest, metrics={}, params={}, tags=tags, run=run_id)
        opened.set_alias(product.name, CANDIDATE, version.version)
        return dg.MaterializeResult(
            metadata={
                "version": version.version,
                "digest": version.digest,
                _RUN_ID: run_id,
                "registry": dg.MetadataValue.url(
                    f"{registry.address}/#/models/{product.name}/versions/{version.version}"
                ),
                "training_rows": manifest.training.rows,
            }
        )

    return candidate


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model with the verdict on it; the verdict's figures are in the manifest."""

    model: bytes
    manifest: Manifest
    verdict: Verdict
    pictures: Mapping[str, bytes]


def fit_and_judge(product: Product, lake: LakeResource, registry: ModelRegistry, *, dataset: str) -> Judged:
    """Return a model fitted on a dataset and judged on its held-out rows, beside the champion on the same rows."""
    from headway.adapters.lightgbm import LightGbm

    rows = read_dataset(product, lake.open(), dataset)
    facts = facts_of(rows, "train").dataset
    learner = LightGbm()
    made = make_candidate(product, part_of(rows, "train"), spec=product.model, learner=learner, tables=facts.tables)
    evidence = gather_evidence(
        product,
        candidate=open_predictor(made.model, made.manifest, load=learner.load),
        champion=open_champion(product, registry),
        holdout=part_of(rows, "gate"),
        yesterday=part_of(rows, "yesterday"),
        watermark_us=facts.known_at_us,
    )
    verdict = judge(evidence, product.gate)
    return Judged(
        model=made.model,
        manifest=judged(made.manifest, verdict),
        verdict=verdict,
        pictures=candidate_pictures(product, made, evidence),
    )


def open_champion(product: Product, registry: ModelRegistry) -> Predictor | None:
    """Return a predictor of the version people promoted, or None while there is none."""
    from headway.adapters.lightgbm import LightGbm

    champion = registry.alias(product.name, CHAMPION)
    if champion is None:
        return None
    model, manifest = registry.load(product.name, champion.version)
    return open_predictor(model, manifest, load=LightGbm().load)


def record(tracking: Tracking, product: Product, made: Judged, *, dataset: str) -> str:
    """Write a model and its verdict into the open tracking run and return the run's id."""
    manifest = made.manifest
    tracking.log_params({name: str(value) for name, value in asdict(product.model).items()})
    tracking.log_metrics(manifest.metrics)
    tracking.set_tags(_tags(product, manifest, made.verdict) | {"headway.dataset": dataset})
    with tempfile.TemporaryDirectory() as folder:
        files = {
            f"{_FOLDER}/{MODEL_FILE}": made.model,
            f"{_FOLDER}/{MANIFEST_FILE}": encode_manifest(manifest),
            "verdict.md": made.verdict.table().encode(),
            **{f"plots/{name}.png": png for name, png in made.pictures.items()},
        }
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        tracking.log_artifacts(folder)
    return str(tracking.active_run().info.run_id)  # type: ignore[attr-defined]  # MLflow's Run


def _commit() -> dict[str, str]:
    return {COMMIT_TAG: code_commit() or "unknown"}


def _tags(product: Product, manifest: Manifest, verdict: Verdict) -> dict[str, str]:
    tables = {f"headway.table.{name}": str(version) for name, version in manifest.training.tables.items()}
    views = {f"headway.view.{name}": digest for name, digest in manifest.views.items()}
    return {
        **_commit(),
        "headway.product": product.name,
        "headway.verdict": "passed" if verdict.passed else "refused",
        "headway.reason": verdict.reason[:5000],  # MLflow's limit of a tag
        "headway.manifest_sha256": manifest.digest,
        "headway.spec_digest": manifest.spec_digest,
        "headway.reference_version": manifest.reference_version,
        **tables,
        **views,
    }


def _gate_told(product: Product) -> str:
    policy = product.gate
    return (
        f"Average precision over {policy.floor_average_precision}, log loss not worse than the champion's by "
        f"{policy.champion_margin} on the same rows (day blocks, {policy.level:.0%}), slices, calibration, leak test, size, "
        "latency, feature outages."
    )


def _gate_result(product: Product, verdict: Verdict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=model_key(product),
        check_name=GATE,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=verdict.reason,
        metadata={"verdict": dg.MetadataValue.md(verdict.table()), **figures(verdict.slice_losses, prefix="loss ")},
    )
