"""Checks of numbers that come from a user's file."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any, TypeVar

from mksgn.common.errors import BadInputError

Config = TypeVar("Config")


def number(what: str, value: Any, low: float, high: float = math.inf, *, whole: bool = False) -> Any:
    """`value` as int or float within [low, high], or BadInputError. YAML reads 6e-3 as text: such text is taken too."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or (whole and value != int(value)) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        bounds = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise BadInputError(f"{what} is {value!r}; it must be {kind} {bounds}")
    return int(value) if whole else float(value)


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON and model.pt hold it: tuples as lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def from_plain(kind: type[Config], what: str, values: dict[str, Any]) -> Config:
    """The config dataclass of such a dict; raises BadInputError that names entries it does not have."""
    unknown = set(values) - {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise BadInputError(f"{what} config: unknown entries {', '.join(sorted(unknown))}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
