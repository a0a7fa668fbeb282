"""Numbers with their nouns, and long lists cut short, worded alike in messages and reports."""

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: 1 core, 2 cores, 2 bodies, 2 mismatches."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else noun + ("es" if noun.endswith("ch") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def first_three(names: Sequence[str]) -> str:
    """List the first three names, and say how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
