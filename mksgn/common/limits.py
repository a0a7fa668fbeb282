"""Whether something fits limits, some of which have not been published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

SHOWN = 3  # most exceeded limits that a sentence names

State = Literal["fits", "not checked", "exceeds"]


@dataclass(frozen=True)
class Fit:
    """What exceeds a chip's limits, and which limits could not be checked.

    A network whose limits are not all published never simply fits: its state is "not checked".
    """

    exceeded: tuple[str, ...]
    unchecked: tuple[str, ...]

    @classmethod
    def of(cls, limits: Iterable[tuple[str, float, float | None]], violations: Sequence[str] = ()) -> Fit:
        """Judge limits, each a name, the largest value and the limit (None: not published).

        Args:
            limits: The limits.
            violations: What a check of the whole program found, a line each. They already name the exceeded limits.
        """
        rows = list(limits)
        exceeded = tuple(violations) or tuple(
            f"{name} ({value:,} of {limit:,})" for name, value, limit in rows if limit is not None and value > limit
        )
        return cls(exceeded, tuple(name for name, _, limit in rows if limit is None))

    @property
    def state(self) -> State:
        return "exceeds" if self.exceeded else "not checked" if self.unchecked else "fits"

    def text(self, chip: str) -> str:
        """Return the state in words: "fits C", "fits what is published of C; NOT CHECKED: …", or "exceeds C: …"."""
        not_checked = f"; NOT CHECKED, no limit published: {', '.join(self.unchecked)}" if self.unchecked else ""
        if self.exceeded:
            more = f"; and {len(self.exceeded) - SHOWN:,} more" if len(self.exceeded) > SHOWN else ""
            return f"exceeds {chip}: {'; '.join(self.exceeded[:SHOWN])}{more}{not_checked}"
        return f"fits what is published of {chip}{not_checked}" if self.unchecked else f"fits {chip}"
