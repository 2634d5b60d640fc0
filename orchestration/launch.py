"""Launches jobs and follows runs through Dagster's webserver, as its own pages do; knows HTTP and no Dagster.

For the demo, drills and scripts: the run is executed by the instance's own launcher, in the queue with all others.
What bites: a run waits in the queue until the daemon takes it (seconds), so `wait` polls a status, not a process.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from headway.clock import monotonic_s
from headway.errors import ContractViolation, PermanentFailure, TransientFailure

LOCATION = "headway"
_REPOSITORY = "__repository__"  # Dagster's name for the definitions of a module
_ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_POLL_S = 0.5
# A launch of a year's days answers when the plan of every day is recorded: over 30 s, seen on a busy machine.
_REQUEST_TIMEOUT_S = 120.0

_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on Error { message } } }"""
_RUN_FIELDS = "runId jobName status startTime endTime tags { key value }"
_RUN = f"query($id: ID!) {{ runOrError(runId: $id) {{ __typename ... on Run {{ {_RUN_FIELDS} }} ... on Error {{ message }} }} }}"
_RUNS = f"""query($filter: RunsFilter!, $limit: Int!) {{ runsOrError(filter: $filter, limit: $limit) {{ __typename
  ... on Runs {{ results {{ {_RUN_FIELDS} }} }} ... on Error {{ message }} }} }}"""
_FAILURES = """query($id: ID!) { logsForRun(runId: $id, limit: 1000) { __typename
  ... on EventConnection { events { __typename
    ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
    ... on AssetCheckEvaluationEvent { evaluation { checkName success severity description } }
    ... on RunFailureEvent { message } } } } }"""
_MATERIALIZED = """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { __typename
  ... on Asset { assetMaterializations(limit: 1) { runId metadataEntries { label
    ... on TextMetadataEntry { text }
    ... on IntMetadataEntry { intRepr }
    ... on FloatMetadataEntry { floatValue }
    ... on BoolMetadataEntry { boolValue }
    ... on JsonMetadataEntry { jsonString }
    ... on MarkdownMetadataEntry { mdStr } } } } } }"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the webserver knows it; ``status`` is Dagster's word, seconds are Unix time, None before."""

    run_id: str
    job: str
    status: str
    tags: Mapping[str, str] = field(default_factory=dict)
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether every step did its work and no blocking check failed."""
        return self.status == "SUCCESS"


class Dagster:
    """A webserver, by address (``http://127.0.0.1:18030``). Not for use from two threads."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._client = httpx.Client(base_url=url, timeout=_REQUEST_TIMEOUT_S, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def launch(
        self,
        job: str,
        *,
        run_config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        partitions: tuple[str, str] | None = None,
    ) -> str:
        """Queue a run of a job and return its id.

        Args:
            job: its name.
            run_config: as in the job's page; None for a job that needs none.
            tags: of the run.
            partitions: first and last partition key, both included, done by one run; a month's key is its first day, a day's the day.

        Raises:
            ContractViolation: there is no such job, or the configuration does not fit it; names what.
            TransientFailure: the webserver did not answer.
        """
        all_tags = dict(tags or {})
        if partitions is not None:
            first, last = partitions
            all_tags |= {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        params = {
            "selector": {"repositoryLocationName": LOCATION, "repositoryName": _REPOSITORY, "jobName": job},
            "runConfigData": dict(run_config or {}),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in sorted(all_tags.items())]},
        }
        answer = self._ask(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            told = "; ".join(error["message"] for error in answer.get("errors", [])) or answer.get("message", "")
            raise ContractViolation(f"job {job}: {answer['__typename']}: {told}")
        return str(answer["run"]["runId"])

    def run(self, run_id: str) -> Run:
        """Return a run as it is now.

        Raises:
            ContractViolation: there is no such run.
        """
        answer = self._ask(_RUN, {"id": run_id})["runOrError"]
        if answer["__typename"] != "Run":
            raise ContractViolation(f"run {run_id}: {answer.get('message', answer['__typename'])}")
        return _as_run(answer)

    def wait(self, run_id: str, *, timeout_s: float) -> Run:
        """Return the run once it has ended, however it ended.

        Raises:
            TransientFailure: it is still under way after ``timeout_s``.
        """
        deadline_s = monotonic_s() + timeout_s
        while not (run := self.run(run_id)).ended:
            if monotonic_s() > deadline_s:
                raise TransientFailure(f"run {run_id} of {run.job}: still {run.status} after {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        return run

    def launch_and_wait(self, job: str, *, timeout_s: float, **launch: Any) -> Run:  # Any: the arguments of `launch`
        """Return the run once it has succeeded.

        Raises:
            PermanentFailure: it failed; says which step and why.
        """
        run = self.wait(self.launch(job, **launch), timeout_s=timeout_s)
        if not run.succeeded:
            raise PermanentFailure(f"run {run.run_id} of {job}: {run.status}: {self.failure(run.run_id)}")
        return run

    def wait_for(self, job: str, *, tag: str, timeout_s: float) -> Run:
        """Return the newest run of a job that carries a tag, once there is one and it has ended.

        Raises:
            TransientFailure: there is none, or it is still under way, after ``timeout_s``.
        """
        deadline_s = monotonic_s() + timeout_s
        while monotonic_s() < deadline_s:
            for run in self.latest_runs({}, job=job):
                if tag in run.tags:
                    return self.wait(run.run_id, timeout_s=deadline_s - monotonic_s())
            time.sleep(_POLL_S)
        raise TransientFailure(f"job {job}: no run with tag {tag!r} within {timeout_s:.0f} s; is its sensor running?")

    def latest_runs(self, tags: Mapping[str, str], *, job: str | None = None, limit: int = 10) -> list[Run]:
        """Return runs that carry all these tags, newest first."""
        wanted: dict[str, Any] = {"tags": [{"key": key, "value": value} for key, value in sorted(tags.items())]}
        if job is not None:
            wanted["pipelineName"] = job
        answer = self._ask(_RUNS, {"filter": wanted, "limit": limit})["runsOrError"]
        if answer["__typename"] != "Runs":
            raise PermanentFailure(f"runs: {answer.get('message', answer['__typename'])}")
        return [_as_run(result) for result in answer["results"]]

    def failure(self, run_id: str) -> str:
        """Return why a run failed: what its blocking checks said, or else its failed steps; or an empty text."""
        events = self._ask(_FAILURES, {"id": run_id})["logsForRun"].get("events", ())
        evaluated = [e["evaluation"] for e in events if e["__typename"] == "AssetCheckEvaluationEvent"]
        if refused := [e for e in evaluated if not e["success"] and e["severity"] == "ERROR"]:
            return "; ".join(f"check {each['checkName']}: {each['description']}" for each in refused)
        told = []
        for event in events:
            if event["__typename"] == "ExecutionStepFailureEvent":
                errors = [event["error"], *event["error"].get("causes", ())]
                told.append(f"{event['stepKey']}: " + " <- ".join(error["message"].strip() for error in errors))
            elif event["__typename"] == "RunFailureEvent" and not told:
                told.append(event["message"])
        return "; ".join(told)

    def metadata(self, asset: Sequence[str]) -> dict[str, Any]:  # Any: text, number, or whatever JSON holds
        """Return the metadata of an asset's newest materialization by label; empty when there is none."""
        answer = self._ask(_MATERIALIZED, {"key": {"path": list(asset)}})["assetOrError"]
        found = answer.get("assetMaterializations") or [{"metadataEntries": []}]
        return {entry["label"]: _value(entry) for entry in found[0]["metadataEntries"]}

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = self._client.post("/graphql", json={"query": query, "variables": variables})
        except httpx.TransportError as error:
            raise TransientFailure(f"Dagster at {self._url}: {error}; is it up? `headway status` shows it") from error
        answer = response.json() if response.headers.get("content-type", "").startswith("application/json") else {}
        if response.is_error or "errors" in answer or "data" not in answer:
            told = answer.get("errors", response.text[:500])
            raise PermanentFailure(f"Dagster at {self._url}: HTTP {response.status_code}: {told}")
        data: dict[str, Any] = answer["data"]
        return data


def _as_run(answer: Mapping[str, Any]) -> Run:
    return Run(
        run_id=answer["runId"],
        job=answer["jobName"],
        status=answer["status"],
        tags={tag["key"]: tag["value"] for tag in answer["tags"]},
        started_s=answer["startTime"],
        ended_s=answer["endTime"],
    )


def _value(entry: Mapping[str, Any]) -> Any:  # Any: as `metadata`
    if entry.get("intRepr") is not None:
        return int(entry["intRepr"])
    return next((value for name, value in entry.items() if name not in ("label", "__typename")), None)
