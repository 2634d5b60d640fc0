"""One instance of a job more than there are partitions, started past the supervisor: what the one without work says."""

import http.client
import json
import os
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from headway.announcement import read_announcement
from headway.clock import monotonic_s
from headway.local.stack import STREAM_JOBS, announcements, module
from headway.settings import LOOPBACK, Settings
from headway.topics import PARTITIONS
from orchestration.chaos.report import Trial

_IDLE_WITHIN_S = 60.0


def idle_spare(settings: Settings, job: str, trial: Trial) -> Mapping[str, Any]:
    """Start one more than there are partitions, past the supervisor, and return what the one without any says."""
    announced = announcements(settings) / f"{job}-{PARTITIONS}.json"
    command = module("streaming.main", job, "--instance", PARTITIONS, "--health-port", 0, "--announce", announced)
    said: list[Mapping[str, Any]] = []
    with (settings.state / "log" / f"{job}-{PARTITIONS}.log").open("ab") as log:
        process = subprocess.Popen(command, env={**os.environ, **settings.environment()}, stdout=log, stderr=log)
    try:
        deadline_s = monotonic_s() + _IDLE_WITHIN_S
        while monotonic_s() < deadline_s:
            said = [_says(settings, job, number) for number in range(PARTITIONS + 1)]
            idle = [each for each in said if each.get("idle")]
            if all(each.get("ready") for each in said) and len(idle) == 1:
                trial.say(f"{PARTITIONS + 1} instances: instance {idle[0]['instance']} idles and says so")
                return idle[0]
            time.sleep(0.2)
        trial.say(f"{PARTITIONS + 1} instances: none idles, or not one alone: {said}")
        return {}
    finally:
        process.terminate()
        process.wait(30)


def _says(settings: Settings, job: str, number: int) -> Mapping[str, Any]:
    if number == 0:
        port = settings.ports.job_first + STREAM_JOBS.index(job)
    else:
        announcement = read_announcement(announcements(settings) / f"{job}-{number}.json")
        if announcement is None:
            return {}
        port = announcement.port
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        answer: Mapping[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    else:
        return answer
    finally:
        connection.close()
