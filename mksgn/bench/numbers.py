"""Numbers, energies and names as text, formatted alike in verdicts, tables and reports."""

from collections.abc import Iterable

NONE = "–"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
UNITS_OF_ENERGY = (("mJ", 1.0), ("µJ", 1e3), ("nJ", 1e6), ("pJ", 1e9))  # each with its number per mJ
LEAST = 0.1  # smallest value shown in a unit; keeps the published 0.596 mJ in mJ


def significant(value: float) -> str:
    """Format with three significant digits, trailing zeros kept: 0.00380, 8.69 × 10⁻⁵, 12,300."""
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(SUPERSCRIPT)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def percent(fraction: float) -> str:
    """Format a fraction as a percentage: whole numbers, with decimals near 100 % where they matter."""
    if fraction > 0.9995:  # rounded, it would read 100 %
        return "100 %" if fraction >= 1 else "over 99.99 %" if fraction > 0.9999 else "over 99.9 %"
    return f"{100 * fraction:.1f} %" if fraction >= 0.9 else f"{100 * fraction:.0f} %"


def count(value: float) -> str:
    """Format a whole number with thousands separators."""
    return f"{value:,.0f}"


def amount(value: float | None) -> str:
    """Format a mean per clip: whole from 1000 on, else with three significant digits."""
    if value is None:
        return NONE
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return significant(value)


def rounded(value: float) -> str:
    """Format for a headline: three significant digits, millions and billions in words."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{significant(value / size)}\u00a0{word}"
    return amount(value)


def energy(value: float | None) -> str:
    """Format an energy given in mJ, in the unit that avoids leading zeros: 35 mJ, 0.596 mJ, 3.31 µJ, 48.7 nJ."""
    if value is None:
        return NONE
    unit, per_mj = unit_of_energy([value])
    return f"{amount(value * per_mj)}\u00a0{unit}"


def unit_of_energy(values: Iterable[float | None]) -> tuple[str, float]:
    """Return the unit that suits the largest of a column of energies in mJ, and how many of it make one mJ."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    fitting = (unit for unit in UNITS_OF_ENERGY if largest * unit[1] >= LEAST)
    return UNITS_OF_ENERGY[0] if not largest else next(fitting, UNITS_OF_ENERGY[-1])


def share(fraction: float | None) -> str:
    """Format a fraction as a percentage with one decimal."""
    return NONE if fraction is None else f"{100 * fraction:.1f} %"


def fraction(value: float) -> str:
    """Format a claimed fraction: with one decimal, or with more where a reduction is close to 100 %."""
    return percent(value) if value >= 0.9 else share(value)


def ratio(value: float | None) -> str:
    """Format measured / theory with three decimals, since most are close to 1."""
    return NONE if value is None else f"{value:.3f}"


def words(kinds: list[str]) -> str:
    """Write kinds of event, which the record spells as host_macs, in plain words."""
    return ", ".join(kinds).replace("_", " ").replace("macs", "MACs") or NONE


def shortened(label: str, most: int) -> str:
    """Shorten a label to `most` characters by leaving out its middle."""
    half = (most - 1) // 2
    return label if len(label) <= most else f"{label[:half]}…{label[-half:]}"
