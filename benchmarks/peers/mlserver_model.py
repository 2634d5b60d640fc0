"""MLServer's runtime of P1: the same model, asked in the Open Inference Protocol, one tensor with the whole vector.

Its numpy codec, the fastest it has (the pandas codec costs nearly twice as much). The model file is in ``PEER_MODEL``.
"""

import os

import lightgbm  # noqa: TID253 - all this process does
from mlserver import MLModel  # type: ignore[import-not-found,unused-ignore]  # the peer's own environment
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found,unused-ignore]
from mlserver.types import (  # type: ignore[import-not-found,unused-ignore]
    InferenceRequest,
    InferenceResponse,
)


class Model(MLModel):  # type: ignore[misc,unused-ignore]
    """One row in, its score out."""

    async def load(self) -> bool:
        """Load the model."""
        self.booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score one row."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        scores = self.booster.predict(rows, num_threads=1)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probability", scores)])
