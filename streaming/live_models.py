"""The model versions a stream job answers with: what is live, loaded and proven before it is named.

A thread looks at the alias ``live`` (S15), which the release controller sets once a version has all the weight, so the
stream follows the requests. A new version is loaded while the old one answers; the handler takes it over between two
batches. Refuses to go without a version it was told of: while none can be had, the stream is held back.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

import structlog

from headway.errors import DependencyDown, HeadwayError
from headway.predictions import ModelId
from headway.predictor import Predictor
from headway.registry import LIVE, ModelSource

POLL_S = 2.0
# The version in force, its successor, and what a replay of older records asks for; a model is some megabytes.
_KEPT = 4
_LOG = structlog.get_logger()

# Gives the proven predictor of a version; raises HeadwayError when it cannot be had.
OpenModel = Callable[[ModelId], Predictor]


class LiveModels:
    """The versions of one product."""

    def __init__(self, product: str, source: ModelSource, open_model: OpenModel) -> None:
        self._product, self._source, self._open = product, source, open_model
        self._predictors: OrderedDict[ModelId, Predictor] = OrderedDict()
        self._held = threading.Lock()
        self._live: ModelId | None = None
        self._known = False
        self._trouble = "not asked yet"
        self._over = threading.Event()

    def start(self) -> None:
        """Look once, and from then on in a thread until `close`."""
        self.look()
        threading.Thread(target=self._keep_looking, name=f"live-{self._product}", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    def look(self) -> None:
        """See what is live, and have it ready; what cannot be had is told and does not end the version before it."""
        try:
            found = self._source.alias(self._product, LIVE)
            if found is not None:
                model = ModelId(name=self._product, version=found.version, digest=found.digest)
                if model != self._live:
                    self.predictor(model)
                    _LOG.info("version ready", product=self._product, version=model.version, digest=model.digest)
                    self._live = model
        except HeadwayError as error:
            if str(error) != self._trouble:
                _LOG.warning("live version not to be had", product=self._product, reason=str(error))
            self._trouble = str(error)
        else:
            self._known, self._trouble = True, ""

    def successor(self, current: ModelId | None) -> ModelId | None:
        """Return what answers from here on: the live version; without one the ``current``, as deleting ends nothing.

        Raises:
            DependencyDown: nobody can say what is live, and there is no version to go on with.
        """
        if current is None and not self._known:
            raise DependencyDown("model registry", f"{self._product}: {self._trouble}")
        return self._live or current

    def predictor(self, model: ModelId) -> Predictor:
        """Return a version's predictor, loaded when it is not at hand.

        Raises:
            DependencyDown: it cannot be had now, or not in this code: a fault of ours and of no record's.
        """
        with self._held:
            found = self._predictors.get(model)
            if found is not None:
                self._predictors.move_to_end(model)
                return found
        # Not under the lock: a new version may take as long as the registry, and the one before it answers meanwhile.
        try:
            found = self._open(model)
        except HeadwayError as error:
            raise DependencyDown(f"{model.name} version {model.version}", str(error)) from error
        with self._held:
            self._predictors[model] = found
            while len(self._predictors) > _KEPT:
                self._predictors.popitem(last=False)
        return found

    def _keep_looking(self) -> None:
        while not self._over.wait(POLL_S):
            self.look()
