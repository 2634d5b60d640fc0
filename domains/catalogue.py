"""Which domains there are: every package under ``domains/`` whose ``domain`` module exports ``DOMAIN``."""

import importlib
import pkgutil

import domains
from headway.contracts import Domain
from headway.errors import ContractViolation


def all_domains() -> dict[str, Domain]:
    """Return every domain by name.

    Raises:
        ContractViolation: a folder's ``domain`` module exports no ``DOMAIN``, or two domains share a name.
    """
    found: dict[str, Domain] = {}
    for module in pkgutil.iter_modules(domains.__path__):
        if not module.ispkg:
            continue
        domain = getattr(importlib.import_module(f"domains.{module.name}.domain"), "DOMAIN", None)
        if not isinstance(domain, Domain):
            raise ContractViolation(f"domains/{module.name}/domain.py: got {domain!r}, wanted DOMAIN = Domain(...)")
        if found.setdefault(domain.name, domain) is not domain:
            raise ContractViolation(f"domains/{module.name}: the name {domain.name!r} is taken")
    return found


def find_domain(name: str) -> Domain:
    """Return the domain of that name.

    Raises:
        ContractViolation: there is none; lists what there is.
    """
    domains_by_name = all_domains()
    if name not in domains_by_name:
        raise ContractViolation(f"domain: got {name!r}, wanted one of {sorted(domains_by_name)}")
    return domains_by_name[name]
