import pytest

from domains.catalogue import all_domains, find_domain
from headway.errors import ContractViolation
from products.catalogue import all_products, find_product


def test_every_folder_of_domains_and_products_is_found_by_its_name() -> None:
    assert all_domains()["flights"] is find_domain("flights")
    assert all_products()["flight_delay"].domain is find_domain("flights")


def test_a_name_nobody_declared_is_refused_with_those_there_are() -> None:
    with pytest.raises(ContractViolation, match=r"product: got 'nothing', wanted one of \['flight_delay'\]"):
        find_product("nothing")
