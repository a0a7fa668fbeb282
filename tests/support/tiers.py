"""How many examples a costly property draws in each tier of the suite (tests/conftest.py)."""

from hypothesis import settings


def examples(in_full: int, fast: int | None = None) -> int:
    """Return `in_full`, or in the fast tier `fast`, by default a fifth of it."""
    if settings.get_current_profile_name() != "fast":
        return in_full
    return max(1, in_full // 5) if fast is None else fast
