"""The stack in the background: ``python -m headway.local.daemon [PART ...]`` prints pid and start time, and returns.

Started by `headway.local.lifecycle.up`, which follows its log; by hand, use ``headway up``. Standard error is the log.
"""

import os
import sys

from headway.errors import HeadwayError
from headway.local.lifecycle import run
from headway.local.processes import own_id
from headway.settings import Settings


def main() -> None:
    """Fork once; the child says who it is, then runs the stack with its output in the log."""
    reading, writing = os.pipe()
    if os.fork() > 0:
        os.close(writing)
        with os.fdopen(reading) as answer:
            sys.stdout.write(answer.read())
        return
    os.close(reading)
    me = own_id()
    with os.fdopen(writing, "w") as answer:
        answer.write(f"{me.pid} {me.started}")
    os.dup2(2, 1)
    try:
        code = run(Settings(), only=sys.argv[1:], say=_say)
    except HeadwayError as error:
        _say(str(error))
        code = 1
    sys.exit(code)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
