"""`make demo`, shortened: the whole loop with every real part, and every figure its report promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.free_ports import free_block


@pytest.mark.integration
@pytest.mark.timeout(1500)
def test_the_short_demo_closes_the_loop_and_keeps_its_promises(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    # A short path: Ray's sockets live below the state folder or beside it.
    env = {**os.environ, "HEADWAY_STATE": str(tmp_path / "s"), "HEADWAY_PORT_BASE": str(free_block())}
    command = [str(Path(sys.executable).with_name("headway")), "demo", "--short", "--report", str(report)]

    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=1400)

    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-3000:]
    facts = json.loads(report.read_text())
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
