"""P1's second peer: LitServe with the same model, ``python litserve_model.py PORT``; features in the request, nothing else.

One worker process and no batching, as its documentation starts; its HTTP server is a process of its own beside it. The
model file is in ``PEER_MODEL``.
"""

import os
import sys
from typing import Any

import lightgbm  # noqa: TID253 - all this process does
import litserve  # type: ignore[import-not-found,unused-ignore]  # the peer's own environment
import numpy as np


class Model(litserve.LitAPI):  # type: ignore[misc,unused-ignore]
    """One row in, its score out."""

    def setup(self, device: str) -> None:
        """Load the model."""
        del device
        self.booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """Return the row."""
        return np.array([request["features"]], dtype=np.float64)

    def predict(self, row: np.ndarray) -> float:
        """Return the score."""
        return float(self.booster.predict(row, num_threads=1)[0])

    def encode_response(self, probability: float) -> dict[str, float]:
        """Return the answer."""
        return {"probability": probability}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
