"""Which products there are: every package under ``products/`` whose ``product`` module exports ``PRODUCT``."""

import products
from domains.catalogue import check_views
from headway.catalogue import declared, find
from headway.product import Product


def all_products() -> dict[str, Product]:
    """Return every product by name; see `headway.catalogue.declared` and `headway.features.lock` for what is refused."""
    found = declared(products, module="product", attribute="PRODUCT", kind=Product)
    for domain in {product.domain.name: product.domain for product in found.values()}.values():
        check_views(domain)
    return found


def find_product(name: str) -> Product:
    """Return the product of that name, or raise a ContractViolation that lists those there are."""
    return find(all_products(), name, what="product")
