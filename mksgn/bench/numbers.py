"""Numbers and names in words: how every figure is written, in verdicts, tables and on the pages."""

from __future__ import annotations

MILLION, BILLION = 1e6, 1e9
NONE = "–"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def significant(value: float) -> str:
    """Three significant digits, trailing zeros kept: 0.00380, 8.69 × 10⁻⁵, 12,300."""
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(SUPERSCRIPT)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def percent(fraction: float) -> str:
    """A fraction as a percentage: whole numbers; decimals close to 100 %, where they matter."""
    if fraction > 0.9995:  # rounded, it would say 100 %
        return "100 %" if fraction >= 1 else "over 99.99 %" if fraction > 0.9999 else "over 99.9 %"
    return f"{100 * fraction:.1f} %" if fraction >= 0.9 else f"{100 * fraction:.0f} %"


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{value:,.0f}"


def amount(value: float | None) -> str:
    """A per-clip mean: whole from 1000 on, else three significant digits."""
    if value is None:
        return NONE
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return significant(value)


def rounded(value: float) -> str:
    """For a headline: millions and billions in words, three significant digits."""
    for size, word in ((BILLION, "billion"), (MILLION, "million")):
        if value >= size:
            return f"{significant(value / size)}\u00a0{word}"
    return amount(value)


def millijoule(value: float | None) -> str:
    """An energy in mJ, so that all of them compare at a glance."""
    return NONE if value is None else f"{amount(value)} mJ"


def share(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal."""
    return NONE if fraction is None else f"{100 * fraction:.1f} %"


def fraction(value: float) -> str:
    """A claimed fraction: one decimal, more where a reduction comes close to all."""
    return percent(value) if value >= 0.9 else share(value)


def ratio(value: float | None) -> str:
    """Measured / theory: three decimals, since most are close to 1."""
    return NONE if value is None else f"{value:.3f}"


def counted(number: int, one: str) -> str:
    """A number with its noun: 1 core, 2 cores."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def words(kinds: list[str]) -> str:
    """Kinds of event, as the record spells them, in plain words."""
    return ", ".join(kinds).replace("_", " ") or NONE


def shortened(label: str, most: int) -> str:
    """A long name with its middle left out; the full one belongs beside it, as a title."""
    half = (most - 1) // 2
    return label if len(label) <= most else f"{label[:half]}…{label[-half:]}"
