"""A package's public names, whose modules are imported when a name is asked for (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package.

    Args:
        package: Its `__name__`.
        modules: By public name, the module below the package that defines it, such as "compiler", or if it has
            another name there, "graph.files:write".
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - the package's
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, other = modules[name].partition(":")
        value = getattr(import_module(f"{package}.{module}"), other or name)
        setattr(sys.modules[package], name, value)  # not asked for again
        return value

    def __dir__() -> list[str]:  # noqa: N807 - the package's
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__
