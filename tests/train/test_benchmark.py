"""The benchmark beside SpikingJelly: same spikes or no ratio, one JSON object, ratios the right way
round."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from mksgn.train import benchmark, neurons
from mksgn.train.benchmark import compare, on_spikingjelly, ratio, spread_of
from mksgn.train.layers import SpikingSelfAttention
from tests.support.students import tiny

pytest.importorskip("spikingjelly", reason="the other side of the benchmark")

TINY = "student: {frames: 4, stream_channels: 2, widths: [4, 8], heads: 2, kernel: 3}\nbatch: 4\n"


@pytest.fixture(scope="module")
def student_and_bodies():
    model, bodies = tiny()
    return model.student, torch.from_numpy(bodies)


@pytest.mark.slow
def test_no_neuron_of_ours_is_left_in_the_twin(student_and_bodies, monkeypatch):
    student, bodies = student_and_bodies
    twin = on_spikingjelly(student)
    assert not [module for module in twin.modules() if isinstance(module, neurons.LIF)]

    def ours(*arguments, **options):
        raise AssertionError("our neuron was called")

    monkeypatch.setattr(neurons, "_fused", ours)
    twin(bodies)
    with pytest.raises(AssertionError, match="our neuron"):
        student(bodies)


def test_the_student_itself_stays_ours(student_and_bodies):
    student, _ = student_and_bodies
    attention = next(module for module in student.modules() if isinstance(module, SpikingSelfAttention))
    on_spikingjelly(student)
    assert isinstance(attention.m_sn, neurons.LIF)
    assert isinstance(student.ssc.sn, neurons.LIF)


def test_both_give_the_same_spikes_and_gradients(student_and_bodies):
    student, bodies = student_and_bodies
    student = copy.deepcopy(student)
    twin = on_spikingjelly(student)
    spikes = {}
    student(bodies, spikes)
    assert compare(student, twin, bodies) == (sum(s.numel() for s in spikes.values()), 0)
    assert 0.01 < sum(s.sum() for s in spikes.values()) / sum(s.numel() for s in spikes.values()) < 0.5
    for network in (student, twin):
        network.train()(bodies).square().sum().backward()
    theirs = dict(twin.named_parameters())
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-4 * parameter.grad.abs().max())


def test_a_difference_is_counted_and_ends_the_benchmark(student_and_bodies, tmp_path, monkeypatch, capsys):
    student, bodies = student_and_bodies
    other = copy.deepcopy(student)
    other.ssc.sn.threshold.fill_(1.2)
    decisions, mismatches = compare(student, other, bodies)
    assert 0 < mismatches < decisions
    monkeypatch.setattr(benchmark, "compare", lambda *sides: (100, 3))
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.setattr(sys, "argv", ["benchmark", str(tmp_path / "tiny.yaml"), "--rounds", "2"])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 3
    assert "3 of 100 decisions differ from SpikingJelly's" in capsys.readouterr().err


def test_a_ratio_above_1_says_that_ours_is_faster():
    pairs = [(1.0, 2.0), (2.0, 6.0), (1.0, 4.0)]  # ours, theirs
    assert ratio(pairs) == 3.0
    low, high = spread_of(pairs)
    assert 2.0 <= low <= 3.0 <= high <= 4.0


@pytest.mark.slow
def test_json_is_one_object_and_nothing_else(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "mksgn.train.benchmark", str(tmp_path / "tiny.yaml"), "--rounds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["train_over_spikingjelly"] > 0
    assert found["inference_over_spikingjelly"] > 0
    assert found["mismatches"] == 0
    assert found["decisions"] > 10_000
    assert found["rounds"] == 2
