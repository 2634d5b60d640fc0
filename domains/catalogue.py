"""Which domains there are: every package under ``domains/`` whose ``domain`` module exports ``DOMAIN``.

Here definitions load, so here they are held to their lock: `headway.features.lock`.
"""

from pathlib import Path

import domains
from headway.catalogue import declared, find
from headway.contracts import Domain
from headway.features.lock import LOCK_FILE, check_locked, read_lock


def all_domains() -> dict[str, Domain]:
    """Return every domain by name; see `headway.catalogue.declared` and `headway.features.lock` for what is refused."""
    found = declared_domains()
    for domain in found.values():
        check_views(domain)
    return found


def find_domain(name: str) -> Domain:
    """Return the domain of that name, or raise a ContractViolation that lists those there are."""
    return find(all_domains(), name, what="domain")


def declared_domains() -> dict[str, Domain]:
    """Return every domain by name, its views not held to the lock: for the command that writes it."""
    return declared(domains, module="domain", attribute="DOMAIN", kind=Domain)


def check_views(domain: Domain) -> None:
    """Refuse views that mean something else than when their version was first used.

    Raises:
        ContractViolation: see `headway.features.lock.check_locked`.
    """
    path = lock_path(domain)
    check_locked(domain.every_view, read_lock(path), where="/".join(path.parts[-3:]))


def lock_path(domain: Domain) -> Path:
    """Return where a domain's lock is: in its folder, which has its name."""
    return Path(domains.__path__[0]) / domain.name / LOCK_FILE
