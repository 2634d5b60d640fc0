"""P5's context: one replica of the feature API over HTTP and gRPC, beside Feast's own feature server, eight at a time."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import children, wrk
from benchmarks.frame import Comparison, Contestant, Plan, Sample, Target, compare
from benchmarks.grpc_load import write_questions
from headway.commands import Say
from headway.errors import PermanentFailure
from headway.settings import LOOPBACK, Settings, project_root
from serving.grpc_server import FEATURE_SERVICE
from serving.proto import features_pb2 as pb

CONNECTIONS = 8
_AS_OF = "2013-07-01T16:00:00Z"
_LOAD = """
local bodies = {{ {bodies} }}
local n = 0
local headers = {{["content-type"] = "application/json"}}
request = function()
  n = n + 1
  return wrk.format("POST", nil, headers, bodies[n % #bodies + 1])
end
"""


@dataclass(frozen=True, kw_only=True)
class Door:
    """An HTTP server under load."""

    url: str
    script: str
    folder: Path

    def measure(self, seconds: float) -> Sample:
        """Load it and count answers."""
        said = wrk.post(self.url, script=self.script, folder=self.folder, connections=CONNECTIONS, seconds=seconds)
        errors = said["status"] + said["socket"]
        facts = {name: said[name] for name in ("p50_ms", "p99_ms")}
        return Sample(value=(said["requests"] - errors) / said["seconds"], errors=errors, facts=facts)


@dataclass(frozen=True, kw_only=True)
class GrpcDoor:
    """A gRPC server under load, by a Python client in a process of its own: the client takes most of the time."""

    address: str
    method: str
    questions: Path

    def measure(self, seconds: float) -> Sample:
        """Load it and count answers."""
        asked = (self.address, self.method, self.questions)
        command = children.module("benchmarks.grpc_load", *asked, seconds, CONNECTIONS)
        done = subprocess.run(command, capture_output=True, text=True, cwd=project_root(), check=False)
        if done.returncode != 0:
            raise PermanentFailure(f"grpc_load: {done.stderr[-500:]}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        facts = {name: said[name] for name in ("p50_ms", "p99_ms")}
        return Sample(value=said["answers"] / said["seconds"], errors=said["errors"], facts=facts)


def compare_doors(
    folder: Path, *, store: str, project: str, flights: Sequence[dict[str, str]], plan: Plan, say: Say
) -> Comparison:
    """Start one replica and Feast's server, and compare."""
    with ExitStack() as started:
        port, grpc_port = _replica(started, folder, store=store, project=project)
        feast_port = _feast_server(started, folder)
        ours = [{"rows": [flight], "as_of": _AS_OF} for flight in flights[:500]]
        theirs = [
            {
                "feature_service": "flight_delay",
                "entities": {key: [value] for key, value in flight.items()},
                "full_feature_names": True,
            }
            for flight in flights[:500]
        ]
        http = Door(url=f"http://{LOOPBACK}:{port}/v1/features/flight_delay", script=load_script(ours), folder=folder)
        feast = Door(
            url=f"http://{LOOPBACK}:{feast_port}/get-online-features", script=load_script(theirs), folder=folder
        )
        grpc = GrpcDoor(
            address=f"{LOOPBACK}:{grpc_port}",
            method=f"/{FEATURE_SERVICE}/GetFeatures",
            questions=write_questions(_messages(flights[:500]), folder / "questions.json"),
        )
        return compare(
            "One row over the network",
            unit="answers/s",
            ours=Contestant(name="feature API, HTTP", measure=http.measure),
            peers=[
                Contestant(name="Feast's feature server", measure=feast.measure),
                Contestant(name="feature API, gRPC", measure=grpc.measure),
            ],
            targets=[Target(peer="Feast's feature server", at_least=1.0)],
            plan=plan,
            say=say,
        )


def _replica(started: ExitStack, folder: Path, *, store: str, project: str) -> tuple[int, int]:
    port, grpc_port = children.free_port(), children.free_port()
    environment = Settings(state=folder, online_store=store, feast_project=project).environment()
    environment |= {"HEADWAY_PORTS__FEATURE_API": str(port), "HEADWAY_PORTS__FEATURE_GRPC": str(grpc_port)}
    started.enter_context(
        children.child(
            "features",
            children.module("serving.features_main"),
            folder=folder,
            ready=children.answers(port, "/readyz"),
            env=environment,
        )
    )
    return port, grpc_port


def _feast_server(started: ExitStack, folder: Path) -> int:
    port = children.free_port()
    feast = str(Path(sys.executable).parent / "feast")
    command = [
        feast,
        "-c",
        str(folder / "feast"),
        "serve",
        "-h",
        LOOPBACK,
        "-p",
        str(port),
        "--no-access-log",
        "-w",
        "1",
    ]
    started.enter_context(
        children.child("feast", command, folder=folder, ready=children.answers(port, "/health"), env={})
    )
    return port


def _messages(flights: Sequence[dict[str, str]]) -> list[bytes]:
    messages = []
    for flight in flights:
        message = pb.GetFeaturesRequest(service="flight_delay")
        message.rows.add().update(flight)
        message.as_of.FromJsonString(_AS_OF)
        messages.append(message.SerializeToString())
    return messages


def load_script(bodies: Sequence[object]) -> str:
    """Give the load that posts these bodies as JSON, one after the other, again and again."""
    return _LOAD.format(bodies=", ".join(f"[==[{json.dumps(body)}]==]" for body in bodies))
