"""A handler that hangs ends its process, which says so in the crash journal and prints where it hung."""

import subprocess
import sys
from pathlib import Path

from streaming.quarantine import Note, Quarantine
from streaming.watchdog import HUNG_STATUS
from tests.unit.test_quarantine import messages

HANG = """
import sys, time
from pathlib import Path
from headway.ports import Message
from streaming import watchdog
from streaming.quarantine import Quarantine
watchdog._STOOD_STILL_S = 0.5
quarantine = Quarantine(Path(sys.argv[1]))
def end():
    quarantine.note_hang()
    watchdog.end_process()
dog = watchdog.Watchdog(deadline_s=0.2, on_hang=end)
time.sleep(0.5)  # it watches long before the first batch comes
with quarantine.in_hand([Message("in", 0, 7, b"k", b"v", (), 0)]), dog.watching():
    {body}
print("went on")
"""


def run(journal: Path, body: str) -> "subprocess.CompletedProcess[str]":
    code = HANG.replace("{body}", body)
    return subprocess.run(
        [sys.executable, "-c", code, str(journal)], capture_output=True, text=True, check=False, timeout=60
    )


def test_past_the_deadline_the_process_ends_and_the_journal_names_the_record(tmp_path: Path) -> None:
    journal = tmp_path / "journal.json"

    done = run(journal, "time.sleep(60)")

    assert (done.returncode, done.stdout.count("went on")) == (HUNG_STATUS, 0)
    assert "batch hangs" in done.stdout + done.stderr
    assert "in <module>" in done.stderr
    assert Quarantine(journal).is_condemned(messages([7])[0])


def test_a_call_that_keeps_the_interpreter_lock_ends_too(tmp_path: Path) -> None:
    """No Python thread can run then; the timer that needs no lock ends the process, with the record in the journal."""
    journal = tmp_path / "journal.json"

    done = run(journal, "__import__('re').match('(a+)+$', 'a' * 60 + 'b')")

    assert done.returncode != 0
    assert "Timeout" in done.stderr
    assert "went on" not in done.stdout
    quarantine = Quarantine(journal)
    assert quarantine._note == Note(suspects={"in/0": (7, 7)}, deaths=1, record={"in/0": (7, 7)}, record_deaths=1)


def test_within_the_deadline_nothing_happens(tmp_path: Path) -> None:
    done = run(tmp_path / "journal.json", "time.sleep(0.01)")

    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_commit_that_hangs_ends_the_process_and_blames_no_record(tmp_path: Path) -> None:
    journal = tmp_path / "journal.json"
    body = """pass
from streaming import instruments
instruments.COMMIT_STEP_DEADLINE_S = 0.3
guards = instruments.Instruments(quarantine=quarantine, watchdog=dog)
with guards.committing():
    for _ in range(4):
        time.sleep(0.15)
        guards.hit("after_produce")  # each step has the deadline to itself
    print("steps passed", flush=True)
    time.sleep(60)"""

    done = run(journal, body)

    assert (done.returncode, "steps passed" in done.stdout) == (HUNG_STATUS, True)
    left = Quarantine(journal)._note
    assert (left.hung, left.deaths, left.suspects) == (False, 0, {})
