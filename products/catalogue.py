"""Which products there are: every package under ``products/`` whose ``product`` module exports ``PRODUCT``."""

import products
from headway.catalogue import declared, find
from headway.product import Product


def all_products() -> dict[str, Product]:
    """Return every product by name; see `headway.catalogue.declared` for what is refused."""
    return declared(products, module="product", attribute="PRODUCT", kind=Product)


def find_product(name: str) -> Product:
    """Return the product of that name, or raise a ContractViolation that lists those there are."""
    return find(all_products(), name, what="product")
