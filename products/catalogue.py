"""Which products there are: every package under ``products/`` whose ``product`` module exports ``PRODUCT``."""

import importlib
import pkgutil

import products
from headway.errors import ContractViolation
from headway.product import Product


def all_products() -> dict[str, Product]:
    """Return every product by name.

    Raises:
        ContractViolation: a folder's ``product`` module exports no ``PRODUCT``, or two products share a name.
    """
    found: dict[str, Product] = {}
    for module in pkgutil.iter_modules(products.__path__):
        if not module.ispkg:
            continue
        product = getattr(importlib.import_module(f"products.{module.name}.product"), "PRODUCT", None)
        if not isinstance(product, Product):
            raise ContractViolation(
                f"products/{module.name}/product.py: got {product!r}, wanted PRODUCT = Product(...)"
            )
        if found.setdefault(product.name, product) is not product:
            raise ContractViolation(f"products/{module.name}: the name {product.name!r} is taken")
    return found


def find_product(name: str) -> Product:
    """Return the product of that name.

    Raises:
        ContractViolation: there is none; lists what there is.
    """
    products_by_name = all_products()
    if name not in products_by_name:
        raise ContractViolation(f"product: got {name!r}, wanted one of {sorted(products_by_name)}")
    return products_by_name[name]
