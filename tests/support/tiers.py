"""What the fast tier of the suite leaves out (tests/conftest.py)."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings


def examples(in_full: int, fast: int | None = None) -> int:
    """Return how many examples a costly property draws: `in_full`, or in the fast tier `fast`, by default a fifth."""
    if settings.get_current_profile_name() != "fast":
        return in_full
    return max(1, in_full // 5) if fast is None else fast


def one_in(step: int, cases: Sequence[Any]) -> list[Any]:
    """Return the cases of a parametrised test, all but one in `step` of them marked slow."""
    return [
        case if i % step == 0 else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]
