"""Collector: events/s with acks=all before the answer, beside FastAPI doing nothing, and in batches of 100.

One Collector process, one FastAPI process, one broker, all children of this one; the same bodies over the same number
of connections. The Collector is asked directly, as FastAPI is: the load balancer's cost is P1's subject.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import children, machine, wrk
from benchmarks.frame import Contestant, Plan, Sample, Target, compare
from benchmarks.peers.environment import FOLDER, peer_python
from benchmarks.report import outcome
from headway.commands import Outcome, Say
from headway.settings import LOOPBACK, Settings
from headway.topics import topic_table

# What a load balancer keeps open to one collector under load, at least.
CONNECTIONS = 64
BATCH_CONNECTIONS = 8
BATCH = 100

# A departure as the replay sends it, with an id of its own per event and run.
_EVENT = (
    '{"specversion":"1.0","id":"%s-%d","source":"/bench","type":"flight.departed.v1","subject":"EWR-%d",'
    '"time":"2013-07-01T10:00:00Z","datacontenttype":"application/json","data":{"carrier":"UA","flight":1545,'
    '"tail":"N14228","origin":"EWR","dest":"IAH","sched_dep":"2013-07-01T09:15:00Z","dep_delay_min":2}}'
)
_SINGLE = """
local n, run = 0, string.format('%x', os.time() * 1000 + math.floor(os.clock() * 1e6) % 1000)
local headers = {{["content-type"] = "application/cloudevents+json"}}
request = function()
  n = n + 1
  return wrk.format("POST", nil, headers, string.format('{event}', run, n, n % 997))
end
"""
_BATCH = """
local n, run = 0, string.format('%x', os.time() * 1000 + math.floor(os.clock() * 1e6) % 1000)
local headers = {{["content-type"] = "application/cloudevents-batch+json"}}
request = function()
  local events = {{}}
  for i = 1, {size} do
    n = n + 1
    events[i] = string.format('{event}', run, n, n % 997)
  end
  return wrk.format("POST", nil, headers, "[" .. table.concat(events, ",") .. "]")
end
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A process that answers on a port, and the broker beside it."""

    port: int
    pid: int
    broker_pid: int


@dataclass(frozen=True, kw_only=True)
class Door:
    """A server under load."""

    server: Server
    script: str
    folder: Path
    connections: int
    events_per_request: int = 1

    def measure(self, seconds: float) -> Sample:
        """Load it and count events answered with success."""
        url = f"http://{LOOPBACK}:{self.server.port}/v1/events"
        before_s = self._used_s()
        said = wrk.post(url, script=self.script, folder=self.folder, connections=self.connections, seconds=seconds)
        used_s = (after - before for after, before in zip(self._used_s(), before_s, strict=True))
        errors = said["status"] + said["socket"]
        answered = (said["requests"] - said["status"]) * self.events_per_request
        names = ("server", "broker", "load")
        spent = zip(names, (*used_s, said["cpu_s"]), strict=True)
        facts = {f"{name}_cpu_us_per_event": each_s / answered * 1e6 for name, each_s in spent}
        latencies = {name: said[name] for name in ("p50_ms", "p99_ms")}
        return Sample(value=answered / said["seconds"], errors=errors, facts={**facts, **latencies})

    def _used_s(self) -> tuple[float, float]:
        return machine.tree_cpu_s(self.server.pid), machine.tree_cpu_s(self.server.broker_pid)


def run(plan: Plan, say: Say) -> Outcome:
    """Take both comparisons."""
    with tempfile.TemporaryDirectory(prefix="headway-p9-") as name:
        folder = Path(name)
        with _servers(folder, say) as (collector, noop, peer):
            say("single events")
            singles = compare(
                "Single events",
                unit="events/s",
                ours=_contestant("Collector", collector, folder),
                peers=[
                    _contestant("FastAPI, no work", noop, folder),
                    _contestant("FastAPI + aiokafka", peer, folder),
                ],
                targets=[Target(peer="FastAPI, no work", at_least=0.8, goal=1.0)],
                plan=plan,
                say=say,
            )
            say("batches")
            batches = compare(
                f"Batches of {BATCH}",
                unit="events/s",
                ours=_batches("Collector, batches", collector, folder),
                peers=[_contestant("Collector, singles", collector, folder)],
                targets=[Target(peer="Collector, singles", at_least=20.0)],
                plan=plan,
                say=say,
            )
    return outcome("P9", [singles, batches])


@contextmanager
def _servers(folder: Path, say: Say) -> Iterator[tuple[Server, Server, Server]]:
    """Start broker, Collector and both peers; give the last three."""
    from headway.adapters.kafka_topics import admin_client, apply_topics

    python = peer_python("fastapi", say=say)
    with ExitStack() as started:
        broker = started.enter_context(children.broker(folder))
        apply_topics(
            admin_client(broker.bootstrap),
            topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1),
        )
        yield (
            _collector(started, folder, broker),
            _peer("fastapi_noop", started, folder, python=python, broker=broker),
            _peer("fastapi_kafka", started, folder, python=python, broker=broker),
        )


def _collector(started: ExitStack, folder: Path, broker: children.Broker) -> Server:
    port = children.free_port()
    environment = Settings(state=folder, kafka_bootstrap=broker.bootstrap).environment()
    environment["HEADWAY_PORTS__COLLECTOR_FIRST"] = str(port)
    command = children.module("serving.collector_main")
    ready = children.answers(port, "/readyz")
    process = started.enter_context(children.child("collector", command, folder=folder, ready=ready, env=environment))
    return Server(port=port, pid=process.pid, broker_pid=broker.pid)


def _peer(app: str, started: ExitStack, folder: Path, *, python: Path, broker: children.Broker) -> Server:
    port = children.free_port()
    command = [str(python), "-m", "uvicorn", f"{app}:app", "--app-dir", str(FOLDER), "--port", str(port)]
    best = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    environment = {"PEER_KAFKA": broker.bootstrap, "PYTHONPATH": ""}
    process = started.enter_context(
        children.child(app, [*command, *best], folder=folder, ready=children.answers(port, "/docs"), env=environment)
    )
    return Server(port=port, pid=process.pid, broker_pid=broker.pid)


def _contestant(name: str, server: Server, folder: Path) -> Contestant:
    script = _SINGLE.format(event=_EVENT)
    door = Door(server=server, script=script, folder=folder, connections=CONNECTIONS)
    return Contestant(name=name, measure=door.measure)


def _batches(name: str, server: Server, folder: Path) -> Contestant:
    script = _BATCH.format(event=_EVENT, size=BATCH)
    door = Door(server=server, script=script, folder=folder, connections=BATCH_CONNECTIONS, events_per_request=BATCH)
    return Contestant(name=name, measure=door.measure)
