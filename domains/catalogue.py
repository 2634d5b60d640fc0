"""Which domains there are: every package under ``domains/`` whose ``domain`` module exports ``DOMAIN``."""

import domains
from headway.catalogue import declared, find
from headway.contracts import Domain


def all_domains() -> dict[str, Domain]:
    """Return every domain by name; see `headway.catalogue.declared` for what is refused."""
    return declared(domains, module="domain", attribute="DOMAIN", kind=Domain)


def find_domain(name: str) -> Domain:
    """Return the domain of that name, or raise a ContractViolation that lists those there are."""
    return find(all_domains(), name, what="domain")
