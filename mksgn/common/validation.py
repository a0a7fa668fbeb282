"""Pydantic's checks of what a user wrote: numbers as YAML gives them, dataclasses of configs, and
errors in one line."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted

Config = TypeVar("Config")
NO_OTHER_ENTRIES = ConfigDict(extra="forbid")


def one_line(error: ValidationError, *, show_value: bool = False) -> str:
    """Format the first fault as `place: what`, the number of further faults, and on request the
    value if it is a scalar."""
    faults = error.errors(include_url=False, include_context=False)
    place = ".".join(str(part) for part in faults[0]["loc"])
    text = faults[0]["msg"].removeprefix("Value error, ")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    value = faults[0]["input"]
    got = f"; got {quoted(value)}" if show_value and isinstance(value, str | int | float | None) else ""
    return (f"{place}: " if place else "") + text + more + got


def _from_yaml(value: Any) -> Any:
    """Convert text such as 6e-3, which YAML does not read as a number; refuse booleans, which
    Python takes for integers."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def plain(config: Any) -> dict[str, Any]:
    """Convert a config to the containers of JSON and model.pt: tuples become lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


Integer = Annotated[int, BeforeValidator(_from_yaml)]
Real = Annotated[float, BeforeValidator(_from_yaml), Field(allow_inf_nan=False)]


def raising_bad_input(name: str) -> Callable[[type[Config]], type[Config]]:
    """Decorate a pydantic dataclass so that its constructor raises BadInputError, in one line that
    starts with `name`."""

    def decorate(cls: type[Config]) -> type[Config]:
        construct = cls.__init__

        def construct_or_refuse(self: Any, *arguments: Any, **entries: Any) -> None:
            try:
                construct(self, *arguments, **entries)
            except ValidationError as error:
                faults = [fault for fault in error.errors() if fault["type"] == "unexpected_keyword_argument"]
                unknown = ", ".join(sorted(str(fault["loc"][0]) for fault in faults))
                text = f"unknown entries {unknown}" if unknown else one_line(error, show_value=True)
                raise BadInputError(f"{name}: {text}") from error

        cls.__init__ = construct_or_refuse  # type: ignore[method-assign]
        return cls

    return decorate
