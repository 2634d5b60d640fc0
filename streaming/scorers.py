"""Puts a product's stream scorer together: its models from the registry, its features from the online store."""

from functools import partial
from pathlib import Path

from headway.adapters.lightgbm import LightGbm
from headway.adapters.redis_online import OnlineReader
from headway.clock import SystemClock
from headway.commit import code_commit
from headway.contracts import Reference
from headway.errors import ContractViolation
from headway.model_files import fetch_model, proven_predictor
from headway.predictions import ModelId
from headway.predictor import Predictor
from headway.product import Product
from headway.registry import ModelSource
from streaming.due_reads import DueReads, NoReads, OnlineReads
from streaming.handlers.score import ScoreHandler
from streaming.jobs import Context
from streaming.live_models import LiveModels

# A batch may read thousands of rows; a store that needs longer for 500 of them is down.
_READ_TIMEOUT_S = 2.0


def build_scorer(product: Product, registry: ModelSource, context: Context) -> ScoreHandler:
    """Return the handler of a product; from now on a thread follows what is live."""
    reference = product.domain.load_reference()
    open_model = partial(_opened, product, reference, registry, context.models_folder)
    models = LiveModels(product.name, registry, open_model)
    models.start()
    return ScoreHandler(
        product,
        models=models,
        reads=_reads(product, context),
        reference=reference,
        restore=context.restore,
        clock=SystemClock(),
        commit=code_commit(),
    )


def _reads(product: Product, context: Context) -> DueReads:
    if not product.views:
        return NoReads()
    reader = OnlineReader(context.online_url, context.feast_project, timeout_s=_READ_TIMEOUT_S)
    return OnlineReads(product, reader)


def _opened(
    product: Product, reference: Reference, registry: ModelSource, models_folder: Path, model: ModelId
) -> Predictor:
    folder = fetch_model(registry, models_folder, product=product.name, version=model.version, digest=model.digest)
    predictor = proven_predictor(product, reference, folder, load=LightGbm().load)
    if predictor.digest != model.digest:
        raise ContractViolation(
            f"{product.name} version {model.version}: digest {predictor.digest}, the registry says {model.digest}"
        )
    return predictor
