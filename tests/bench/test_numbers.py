"""How figures are written."""

from mksgn.bench.numbers import amount, count, counted, fraction, millijoule, ratio, rounded, share


def test_figures_have_few_digits_and_a_unit():
    assert (count(1234567), amount(1234567.8), amount(22.5), amount(0.0038), amount(None)) == (
        "1,234,567",
        "1,234,568",
        "22.5",
        "0.00380",
        "–",
    )
    assert millijoule(8.69e-5).replace("\N{NO-BREAK SPACE}", " ") == "8.69 × 10⁻⁵ mJ"
    assert (millijoule(15.6232), share(0.123), share(None)) == ("15.6 mJ", "12.3 %", "–")
    assert [rounded(n).replace("\N{NO-BREAK SPACE}", " ") for n in (38_293, 2_056_188, 7.6e9)] == [
        "38,293",
        "2.06 million",
        "7.60 billion",
    ]
    assert (fraction(0.785), fraction(0.98), ratio(1.0), ratio(None)) == ("78.5 %", "98.0 %", "1.000", "–")
    assert (counted(1, "core"), counted(2_000, "core")) == ("1 core", "2,000 cores")
