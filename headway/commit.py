"""Which code is running: the commit of the checkout, for records that must say what made them.

What bites: ``-dirty`` at the end means that files were changed since, so that nobody can get this code back.
"""

import subprocess
from functools import cache

from headway.settings import project_root

# Of a tracking run, the code that trained; of a registered version, the code that registered it.
COMMIT_TAG = "headway.commit"


@cache
def code_commit() -> str | None:
    """Return the commit of the code this process began with; None where it is no checkout, or git is not there."""
    git = ["git", "-C", str(project_root()), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        said = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return said.stdout.strip() or None if said.returncode == 0 else None
