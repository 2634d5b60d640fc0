"""`make demo`, shortened: the whole loop with every real part, and every figure its report promises.

Afterwards the commands of the README run against the stack it leaves up, as they stand there.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headway.settings import project_root
from tests.free_ports import free_block

HEADWAY = str(Path(sys.executable).with_name("headway"))


def run(arguments: list[str], env: dict[str, str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HEADWAY, *arguments], env=env, capture_output=True, text=True, check=False, timeout=timeout_s
    )


def readme_commands() -> list[str]:
    """The lines of the README's block that goes on from where the demo stopped."""
    blocks = re.findall(r"```sh\n(.*?)```", (project_root() / "README.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if "headway ledger" in block]
    return [line for line in block.splitlines() if line.startswith("headway ")]


def readme_curl(port: int) -> str:
    [command] = re.findall(r"```console\n(curl .*?)```", (project_root() / "README.md").read_text(), re.DOTALL)
    return str(command).replace("18000", str(port))


@pytest.mark.integration
@pytest.mark.timeout(1500)
def test_the_short_demo_keeps_its_promises_and_the_commands_of_the_readme_work_on_what_it_leaves(
    tmp_path: Path,
) -> None:
    report, base = tmp_path / "report.json", free_block()
    env = {**os.environ, "HEADWAY_STATE": str(tmp_path / "s"), "HEADWAY_PORT_BASE": str(base)}
    try:
        ended = run(["demo", "--short", "--keep", "--report", str(report)], env, timeout_s=1200)

        assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-3000:]
        check(json.loads(report.read_text()))
        answer = subprocess.run(["bash", "-c", readme_curl(base)], capture_output=True, text=True, check=True)
        assert 0 < json.loads(answer.stdout)["probability"] < 1
        for command in readme_commands():
            done = run(shlex.split(command)[1:], env, timeout_s=120)
            assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    finally:
        run(["down"], env, timeout_s=60)


def check(facts: dict[str, Any]) -> None:
    assert facts["problems"] == []
    assert facts["events_accepted"] == facts["events_enriched"] + facts["letters"] + facts["duplicates"]
    assert facts["letters"] >= 1
    assert facts["duplicates"] >= 1
    assert facts["failed_requests"] == 0
    assert facts["predictions"] == facts["offered"]["n"] == facts["parity"]["checked"]
    assert facts["parity"]["mismatches"] == 0
    assert facts["model"]["v1"]["average_precision"] >= 0.60
    assert facts["planted_change_detected_after"] <= 2
    assert facts["retrain_run_id"]
    assert len(facts["windows"]) == 11
