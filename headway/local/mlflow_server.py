"""MLflow's server in one process: ``python -m headway.local.mlflow_server --port PORT --data FOLDER``.

``mlflow server`` imports MLflow in a parent that then only waits for its worker: measured on two busy cores, 490 MB and
19 s of processor time to start, against 260 MB and 9 s here. The variables set are those ``mlflow server`` itself hands
to its worker, by MLflow's own constants, so a version that renames them fails here at import. Host checks stay on.
"""

import argparse
import os
from pathlib import Path

from headway.settings import LOOPBACK

# Longer than any client keeps an idle connection, so that the server is never the one to close it under a request.
_KEEP_ALIVE_S = 75


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="headway.local.mlflow_server", description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="gets mlflow.db and artifacts/")
    arguments = parser.parse_args()
    _serve(arguments.port, arguments.data)


def _serve(port: int, data: Path) -> None:
    import uvicorn  # 5 s with the three below, which is why this is not at the top
    from mlflow.environment_variables import _MLFLOW_SGI_NAME
    from mlflow.server import constants
    from mlflow.server.handlers import initialize_backend_stores

    (data / "artifacts").mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{data / 'mlflow.db'}"
    artifact_root = "mlflow-artifacts:/"  # clients read and write artifacts through the server
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.REGISTRY_STORE_URI_ENV_VAR: database,
        constants.ARTIFACT_ROOT_ENV_VAR: artifact_root,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(data / "artifacts"),
        _MLFLOW_SGI_NAME.name: "uvicorn",
    }
    initialize_backend_stores(database, database, artifact_root)
    from mlflow.server.fastapi_app import app  # reads the variables when imported

    uvicorn.run(app, host=LOOPBACK, port=port, access_log=False, timeout_keep_alive=_KEEP_ALIVE_S)


if __name__ == "__main__":
    main()
