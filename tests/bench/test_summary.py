"""mksgn/bench/summary: the lines on a terminal."""

from typing import Any

import pytest

from mksgn.bench import summary
from mksgn.bench.claims import published_claims
from mksgn.bench.energy_models import known_models
from mksgn.bench.record import Record
from mksgn.bench.verdicts import evaluate_claims
from tests.support.records import small_run


def lines(capsys: pytest.CaptureFixture[str], run: dict[str, Any], torch_top1: float | None = 0.8) -> list[str]:
    record = evaluate_claims(Record.model_validate(run), known_models(), published_claims())
    summary.show(record, torch_top1)
    return capsys.readouterr().out.splitlines()


def test_accuracies_counts_energies_claims_and_parity_have_a_line_each(capsys):
    text = lines(capsys, small_run())
    for line in (
        "top-1 in torch, unquantised              80.0%",
        "top-1 in lava, fixed point               75.0%",
        "spikes per clip                                   200",
        "syn_ops per clip                                3,000",
        "energy per clip, theory                     4.924e-05 mJ   (paper's formula, measured rates)",
        "energy per sample, v5: published 0.596 mJ, this run 4.87e-05 mJ (verdict in the report)",
        "reduction against a multimodal GCN: published 98.0 %, this run over 99.99 % (verdict in the report)",
        "accuracy, NW-UCLA: published 92.3 %, this run – (verdict in the report)",
        "parity against torch: 0 mismatches in 4,800 decisions",
        "placement: 5 cores on 1 chip; fits what is published of loihi2; NOT CHECKED, no limit published: output axons "
        "per core",
        "2.0 s (1.9 to 2.5 s in 3 repetitions), 2.0 clips/s on this host; latency 3 steps",
    ):
        assert line in text
    (total,) = (line for line in text if "horowitz45-fp32" in line)
    assert total.startswith(
        "energy per clip, horowitz45-fp32            4.870e-05 mJ   (declared; excludes neuron_updates, "
    )
    (bound,) = (line for line in text if "davies2018" in line)
    assert bound.startswith(
        "energy per clip, davies2018-loihi1  >=       0.000142 mJ   (simulated; no price: host_macs, "
    )
    assert not any("loihi2-pilotnet" in line for line in text)


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
    assert text[-1] == "2.0 s, 2.0 clips/s on this host; latency 1 step"
    assert not any("top-1" in line or "parity" in line for line in text)
