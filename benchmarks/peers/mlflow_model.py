"""P1's peer MLflow: writes the same model in its format, ``python mlflow_model.py FOLDER``, for ``mlflow models serve -m FOLDER``.

The signature is one tensor, so that a request is an array; with named columns each becomes a data frame first. The model
file is in ``PEER_MODEL``. Its wrapper predicts with as many threads as ``OMP_NUM_THREADS`` allows; more than one make a row
slower.
"""

import os
import sys

import lightgbm  # noqa: TID253 - all this process does
import mlflow  # noqa: TID253 - likewise
import numpy as np
from mlflow.models import ModelSignature  # noqa: TID253 - likewise
from mlflow.types import Schema, TensorSpec  # noqa: TID253 - likewise


def main(folder: str) -> None:
    """Write the folder."""
    booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])
    row = TensorSpec(np.dtype("float64"), (-1, booster.num_feature()))
    signature = ModelSignature(inputs=Schema([row]))
    # Named, as MLflow would otherwise start the model in a process to find out what it imports.
    mlflow.lightgbm.save_model(booster, folder, signature=signature, pip_requirements=["lightgbm"])


if __name__ == "__main__":
    main(*sys.argv[1:])
