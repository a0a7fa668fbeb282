"""Checks of what was read from a file against what it restores, before it is used."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted


def check_plain(value: Any, what: str) -> None:
    """Raise BadInputError unless `value` is plain: None, booleans, text, finite numbers, and lists of these and
    dictionaries of these with text as keys."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise BadInputError(f"{what}: {quoted(key)} as a key, expected text")
            check_plain(inner, f"{what}.{quoted(key)[1:-1]}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            check_plain(inner, f"{what}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInputError(f"{what} is {value}, expected a finite number")
    elif not isinstance(value, str | int | float | None):
        raise BadInputError(f"{what} is {_kind(value)}, expected text or a number")


def check_like(value: Any, form: Any, what: str) -> None:
    """Raise BadInputError unless `value` has the keys, lengths, types, shapes and dtypes of `form`, and finite
    numbers only."""
    match form:
        case Tensor():
            _check_tensor(value, form, what)
        case Mapping():
            _check_keys(value, form.keys(), what)
            for key, inner in form.items():
                check_like(value[key], inner, f"{what}.{key}")
        case list() | tuple():
            if not isinstance(value, list | tuple) or len(value) != len(form):
                raise BadInputError(f"{what} is {_kind(value)}, expected {len(form)} values")
            for index, (inner, inner_form) in enumerate(zip(value, form, strict=True)):
                check_like(inner, inner_form, f"{what}.{index}")
        case _:
            _check_scalar(value, form, what)


def check_texts(values: Mapping[str, Any], names: Collection[str], what: str) -> None:
    """Raise BadInputError if one of these entries is present and is not text."""
    for name in names:
        if not isinstance(values.get(name), str | None):
            raise BadInputError(f"{what}.{name} is {_kind(values[name])}, expected text")


def _check_keys(value: Any, expected: Collection[Any], what: str) -> None:
    if not isinstance(value, dict):
        raise BadInputError(f"{what} is {_kind(value)}, expected a dictionary")
    missing = [key for key in expected if key not in value]
    if missing:
        raise BadInputError(f"{what}: {quoted(missing[0])} is missing ({len(missing):,} in all)")
    other = [key for key in value if key not in expected]
    if other:
        raise BadInputError(f"{what}: {quoted(other[0])} is unknown ({len(other):,} in all)")


def _check_tensor(value: Any, form: Tensor, what: str) -> None:
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise BadInputError(f"{what} is {_kind(value)}, expected a tensor")
    if value.shape != form.shape or value.dtype != form.dtype:
        found, expected = (f"{x.dtype} of shape {tuple(x.shape)}" for x in (value, form))
        raise BadInputError(f"{what} has {found}, expected {expected}".replace("torch.", ""))
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise BadInputError(f"{what} has values that are not finite")


def _check_scalar(value: Any, form: Any, what: str) -> None:
    number = isinstance(form, float) and type(value) in (int, float)
    if type(value) is not type(form) and not number:
        raise BadInputError(f"{what} is {_kind(value)}, expected {_kind(form)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInputError(f"{what} is {value}, expected a finite number")


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
