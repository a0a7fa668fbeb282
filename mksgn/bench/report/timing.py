"""The time on the chip, as the page's first screen states it, of records that have it (`timing`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mksgn.bench.record import Record


@dataclass(frozen=True)
class Timing:
    """The time on the chip in words.

    Attributes:
        value: The time of one sample, with its unit.
        note: Model or measurement that it comes from.
        limited_by: A sentence on what takes the time.
        figures: All fields of the record's `timing`, by name.
    """

    value: str
    note: str
    limited_by: str
    figures: Mapping[str, Any]


def timing_of(record: Record) -> Timing | None:
    """Return a record's time on the chip; None where it has none."""
    timing = getattr(record, "timing", None)
    if timing is None:
        return None
    figures = timing.model_dump() if isinstance(timing, BaseModel) else dict(timing)
    value, note, limited_by = (str(figures.get(name) or "") for name in ("value", "note", "limited_by"))
    return Timing(value, note, limited_by, figures)
