"""mksgn/bench/numbers: how figures are written."""

from mksgn.bench.numbers import energy, percent, shortened, significant, unit_of_energy, words


def test_three_significant_digits_keep_their_zeros():
    texts = [significant(x) for x in (0.0038, 8.69e-5, 12_345, 0.6, 999.6, 1e6, 0)]
    assert texts == ["0.00380", "8.69\u00a0×\u00a010⁻⁵", "12,345", "0.600", "1.00e+03", "1.00\u00a0×\u00a010⁶", "0.00"]


def test_percentages_keep_decimals_where_they_matter():
    texts = [percent(x) for x in (1.0, 0.99995, 0.983, 0.5536, -1.2)]
    assert texts == ["100 %", "over 99.99 %", "98.3 %", "55 %", "-120 %"]


def test_names():
    assert words(["host_macs", "memory"]) == "host MACs, memory"
    assert words([]) == "–"
    assert shortened("block1_attention.m", 9) == "bloc…on.m"
    assert shortened("short", 9) == "short"


def test_an_energy_has_the_unit_that_spares_it_leading_zeros():
    mj = (35, 0.596, 0.1, 0.0999, 3.31e-3, 4.87e-5, 4.6e-8, 0, 2e-12)
    written = [energy(value).replace("\N{NO-BREAK SPACE}", " ") for value in mj]
    assert written == ["35 mJ", "0.596 mJ", "0.100 mJ", "99.9 µJ", "3.31 µJ", "48.7 nJ", "46 pJ", "0 mJ", "0.00200 pJ"]
    assert energy(None) == "–"
    assert unit_of_energy([None, 2e-5, 3e-8]) == ("nJ", 1e6)
    assert unit_of_energy([]) == ("mJ", 1.0)
