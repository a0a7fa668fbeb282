"""A chip comparison on the terminal."""

from io import StringIO

from rich.console import Console

from mksgn.bench.chip_counts.comparison import compare_chip
from mksgn.bench.chip_counts.tables import tables
from tests.support.chip_readings import ENERGY, changed, counts


def test_tables_list_counters_that_differ_and_all_energies(record):
    text = StringIO()
    console = Console(file=text, width=140, highlight=False, markup=False)
    product = next(layer for layer in record.layers if layer.product_units)
    chip = changed(record, product.name, "dendrite_updates", product.neuron_updates - product.product_units)
    for table in tables(compare_chip(record, chip.model_copy(update={"energy": counts(record, energy=ENERGY).energy}))):
        console.print(table)
    assert product.name in text.getvalue()
    assert "without the record's product units" in " ".join(text.getvalue().split())
    assert "horowitz45-fp32" in text.getvalue()
    assert "readout" not in text.getvalue()  # equal, so not listed
