"""mksgn/bench/summary: the lines on a terminal."""

from typing import Any

import pytest

from mksgn.bench import summary
from mksgn.bench.claims import published_claims
from mksgn.bench.energy_models import known_models
from mksgn.bench.record import EnergyEntry, Record
from mksgn.bench.verdicts import evaluate_claims
from tests.support.records import small_run


def lines(capsys: pytest.CaptureFixture[str], run: dict[str, Any], torch_top1: float | None = 0.8) -> list[str]:
    record = evaluate_claims(Record.model_validate(run), known_models(), published_claims())
    summary.show(record, torch_top1)
    return capsys.readouterr().out.splitlines()


def test_accuracies_counts_claims_and_parity_have_a_line_each(capsys):
    text = lines(capsys, small_run())
    for line in (
        "top-1 in torch, unquantised             80.0%",
        "top-1 in lava, fixed point              75.0%",
        "spikes per clip on the chip               200",
        "syn_ops per clip                        3,000",
        "  energy per sample, v5: 0.596 mJ; this run 48.7 nJ",
        "  reduction against a multimodal GCN: 98.0 %; this run over 99.99 %",
        "parity against torch: 0 mismatches in 4,800 decisions",
        "placement: 5 cores on 1 chip; fits what is published of loihi2; NOT CHECKED, no limit published: output axons "
        "per core",
        "latency: 3 steps to the first output; simulated on this host in 2.0 s (1.9 to 2.5 s in 3 repetitions), 2.0 clips/s, "
        "start included",
    ):
        assert line in text
    assert not any("NW-UCLA" in line for line in text)  # of other data: this run has no figure for it


def test_energies_stand_in_one_unit_with_what_they_leave_out(capsys):
    text = lines(capsys, small_run())
    first = text.index("energy per clip, µJ (>= a lower bound):")
    rows = text[first + 1 :]
    assert rows[0] == "  horowitz45-fp32             0.048700   declared   [1]"
    assert "  davies2018-loihi1    >=     0.141696   simulated  [3]" in rows
    assert "  theory                      0.049240   paper's formula, measured rates" in rows
    assert any(line.startswith("  [1] left out on purpose: neuron updates, ") for line in rows)
    assert any(line.startswith("  [3] no price for host MACs, ") for line in rows)
    assert not any("loihi2-pilotnet" in line for line in text)  # prices nothing


@pytest.mark.parametrize(
    ("energies", "unit", "shown"),
    [
        ([0.0], "mJ", ["0.00"]),
        ([35.0, 1.5], "mJ", ["35.00", "1.50"]),
        ([2e-4, 3e-9], "µJ", ["0.200000", "0.000003"]),
        ([2e-9], "pJ", ["2.00"]),
        ([1234.5], "mJ", ["1,234"]),
    ],
)
def test_the_smallest_energy_of_the_column_keeps_three_digits(energies, unit, shown):
    left_out = {"excludes": ["memory"], "unpriced": [], "lower_bounds": {}, "terms": {"syn_ops": 1.0}}
    entries = [
        EnergyEntry.model_construct(
            model=f"m{number}", total_mJ=energy, priced_mJ=energy, evidence="declared", **left_out
        )
        for number, energy in enumerate(energies)
    ]  # fmt: skip
    head, *rows, note = summary.energy_lines(entries, "image")
    assert head == f"energy per image, {unit}:"
    assert [row.split()[1] for row in rows] == shown
    assert note == "  [1] left out on purpose: memory"


def test_the_table_shows_macs_on_the_host_and_synaptic_operations_on_the_chip(capsys):
    cells = {}
    for line in lines(capsys, small_run()):
        row = [cell.strip() for cell in line.strip("│").split("│")]
        cells[row[0]] = row[1:]
    assert cells["encoder"] == ["25.00%", "100", "10,000 MACs", "–", "0.046"]
    assert cells["blocks.0.conv"] == ["25.00%", "100", "1,750", "2,000", "0.002"]


def test_a_single_clip_and_no_accuracy(capsys):
    run = small_run() | {"accuracy": None, "parity": None}
    run["data"] |= {"clips": 1}
    run["execution"] |= {"repeats": 1, "latency_steps": 1}
    text = lines(capsys, run)
    assert text[0].startswith("per clip, over 1 clip of synthetic")
    assert (
        text[-1] == "latency: 1 step to the first output; simulated on this host in 2.0 s, 2.0 clips/s, start included"
    )
    assert not any("top-1" in line or "parity" in line for line in text)
