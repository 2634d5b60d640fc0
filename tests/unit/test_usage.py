"""What `headway status` says a process costs."""

import os
import subprocess
import sys
import time

from headway.local.usage import with_share, with_usage

SPIN = "import sys\nfor number in range(10**7): pass\nprint('spun', flush=True)\nsys.stdin.read()"


def test_a_process_costs_what_its_children_cost_too() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"spun\n"
        [alone, family] = with_usage([{"pid": child.pid}, {"pid": os.getpid()}])
        child.communicate()

    assert alone["cpu_s"] > 0
    assert family["cpu_s"] > alone["cpu_s"]
    assert family["memory_mb"] > alone["memory_mb"] > 0


def test_a_share_is_of_the_time_watched_and_nobody_has_one_who_did_not_run() -> None:
    deadline = time.monotonic() + 20
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        both: list[dict[str, object]] = [{"name": "busy", "pid": child.pid}, {"name": "away", "pid": None}]
        while not (watched := with_share(both, over_s=0.05))[0]["cpu_percent"]:
            assert time.monotonic() < deadline
        child.kill()
    [gone] = with_share([{"name": "gone", "pid": child.pid}], over_s=0.0)

    assert watched[1] == {"name": "away", "pid": None, "memory_mb": None, "cpu_s": None, "cpu_percent": None}
    assert gone["cpu_percent"] is None
