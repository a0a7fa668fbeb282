"""mksgn-bench and `measure` on networks of anybody: labelled arrays, exact counts, the same record and gates."""

import json
import re
import shutil
import warnings

import nir
import numpy as np
import pytest
import torch

from mksgn.bench import load, measure
from mksgn.bench.check.check import check
from mksgn.bench.compare.runs import compare_folders
from mksgn.bench.run import bench
from mksgn.bench.samples import ArraySamples
from mksgn.bench.shards import Settings
from mksgn.bench.timing_models import known_timing_models
from mksgn.common.errors import BadInputError
from mksgn.deploy import compile_graph, run
from mksgn.deploy.options import Reading
from mksgn.deploy.placement.chips import LOIHI2, chip_named, known_chips
from mksgn.deploy.placement.place import place
from mksgn.export.graph import files
from mksgn.train.checkpoint import sha256
from mksgn.train.datasets.arrays import array_set
from tests.bench.test_brute_force import LAVA
from tests.support import graphs as net
from tests.support.bench_runs import some_clips, student_files
from tests.support.brute_force import count
from tests.support.paths import EXAMPLES
from tests.support.tiers import one_in

STEPS, SAMPLES = 9, 12


def neurons(kind, size, **values):
    return kind(**{name: np.full(size, value, np.float32) for name, value in values.items()})


def bare(*nodes, more=(), edges=()):
    """A graph as other frameworks write it, without any metadata."""
    graph = net.chain(*nodes)
    graph.metadata = {}
    graph.nodes |= dict(more)
    graph.edges += list(edges)
    return graph


def affine_lif(rng):
    lif = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    return bare(
        ("input", net.inp(6)),
        ("0", net.affine(rng.normal(0, 0.6, (8, 6)), rng.normal(0, 0.1, 8))),
        ("1", neurons(nir.LIF, 8, **lif)),
        ("2", net.affine(rng.normal(0, 0.6, (3, 8)), rng.normal(0, 0.1, 3))),
        ("3", neurons(nir.LIF, 3, **lif)),
        ("output", net.out(3)),
    )


def conv_if(rng):
    return bare(
        ("input", net.inp(2, 6, 5)),
        ("0", net.conv(rng.normal(0, 0.5, (3, 2, 3, 3)), stride=2, padding=1)),
        ("1", neurons(nir.IF, (3, 3, 3), r=1.0, v_threshold=1.0, v_reset=0.0)),
        ("2", net.flatten(3, 3, 3)),
        ("3", net.linear(rng.normal(0, 0.4, (4, 27)))),
        ("4", neurons(nir.IF, 4, r=1.0, v_threshold=1.0, v_reset=0.0)),
        ("output", net.out(4)),
    )


def recurrent_cubalif(rng):
    cuba = {"tau_syn": 2e-4, "tau_mem": 4e-4, "r": 4.0, "v_leak": 0.0, "v_threshold": 0.8, "w_in": 2.0, "v_reset": 0.0}
    return bare(
        ("input", net.inp(5)),
        ("0", net.linear(rng.normal(0, 0.6, (7, 5)))),
        ("1", neurons(nir.CubaLIF, 7, **cuba)),
        ("2", net.linear(rng.normal(0, 0.6, (3, 7)))),
        ("3", neurons(nir.CubaLIF, 3, **cuba)),
        ("output", net.out(3)),
        more={"back": net.linear(rng.normal(0, 0.3, (7, 7)))}.items(),
        edges=[("1", "back"), ("back", "1")],
    )


NETWORKS = {"affine_lif": (affine_lif, {}), "conv_if": (conv_if, {"if_dt": 1.0}), "cubalif": (recurrent_cubalif, {})}


def made(name):
    """A network, its spikes, and what its file leaves open."""
    build, options = NETWORKS[name]
    rng = np.random.default_rng(3)
    graph = build(rng)
    shape = graph.nodes["input"].input_type["input"]
    return graph, rng.random((SAMPLES, STEPS, *shape)) < 0.4, options


@pytest.mark.parametrize("backend", ["emulator", LAVA])
@pytest.mark.parametrize("precision", one_in(2, ["fixed", "float"]))
@pytest.mark.parametrize("name", NETWORKS)
def test_synaptic_operations_are_those_of_brute_force(name, precision, backend):
    graph, x, options = made(name)
    calibration = x if precision == "fixed" else None
    measured = measure(graph, x, np.zeros(SAMPLES, int), backend=backend, calibration=calibration, **options)
    assert measured.record.execution.precision == precision
    program = compile_graph(graph, precision=precision, calibration=calibration, **options)
    spikes = run(program, x).spikes
    census = count(measured.network.graph, {"input": x, **spikes}, merged=False)  # whose weights may round to 0
    assert [layer.name for layer in measured.layers] == list(census.layers)
    for layer in measured.layers:
        expected = census.layers[layer.name]
        for field in ("spikes", "syn_ops", "effective_acs", "neuron_updates", "dense_ops"):
            assert getattr(layer, field) == getattr(expected, field), (layer.name, field)
    assert all(layer.syn_ops for layer in measured.layers)
    outputs = run(program, x).outputs["output"].sum(1).reshape(SAMPLES, -1)
    np.testing.assert_array_equal(measured.predictions, outputs.argmax(1))
    if backend == "lava":
        assert measured.record.parity.mismatches == 0 < measured.record.parity.decisions


def test_a_current_that_varies_is_charged_at_every_step_and_a_constant_one_once():
    graph, _, _ = made("affine_lif")
    image = np.random.default_rng(0).random((SAMPLES, 6)).astype(np.float32)
    constant = measure(graph, image, steps=STEPS, analog="input")
    film = measure(graph, np.repeat(image[:, None], STEPS, 1), analog=["input"])
    macs = 6 * 8
    assert (constant.record.totals.host_macs, constant.record.totals.host_macs_every_step) == (macs, macs * STEPS)
    assert (film.record.totals.host_macs, film.record.totals.host_macs_every_step) == (macs * STEPS, macs * STEPS)
    assert film.record.totals.Effective_MACs == macs * STEPS
    assert film.record.totals.spikes == constant.record.totals.spikes
    costs = {run_.energy["horowitz45-fp32"].total_mJ for run_ in (constant, film)}
    assert len(costs) == 2
    assert max(costs) == pytest.approx(constant.energy["horowitz45-fp32"].total_every_step_mJ)
    assert film.record.energy[0].total_mJ == film.record.energy[0].total_every_step_mJ


@pytest.mark.parametrize("precision", one_in(2, ["float", "fixed"]))
@pytest.mark.parametrize("name", NETWORKS)
def test_its_decisions_are_compared_with_nir_s_reference(name, precision):
    graph, x, options = made(name)
    calibration = x if precision == "fixed" else None
    parity = measure(graph, x, calibration=calibration, **options).record.parity
    neurons = [node for node in graph.nodes.values() if hasattr(node, "v_threshold")]
    assert parity.against == "NIR reference"
    assert parity.decisions == SAMPLES * STEPS * sum(node.v_threshold.size for node in neurons)
    assert (parity.mismatches, parity.faults, parity.first) == (0, 0, None)
    assert measure(graph, x, calibration=calibration, compare=0, **options).record.parity is None
    assert measure(graph, x, calibration=calibration, compare=1, **options).record.parity.decisions < parity.decisions


def test_the_reference_reads_the_file_as_the_run_does_and_a_difference_is_no_fault():
    graph, x, _ = made("affine_lif")
    options = {"reset": "subtract", "integration": "exponential", "spike_delay": 1}
    assert measure(graph, x, **options).record.parity.mismatches == 0
    constants = {"tau": 2e-3, "r": 20.0, "v_leak": 0.0, "v_threshold": 3.0, "v_reset": 0.0}  # 4096 / 20 is no integer
    rng = np.random.default_rng(4)
    fine = bare(
        ("input", net.inp(6)),
        ("0", net.linear(rng.normal(0, 0.6, (40, 6)))),
        ("1", neurons(nir.LIF, 40, **constants)),
        ("output", net.out(40)),
    )
    x = rng.random((40, 60, 6)) < 0.4
    found = measure(fine, x, calibration=x)
    parity = found.record.parity
    assert parity.mismatches == parity.rounding > parity.faults == 0
    assert parity.first.layer == "1"
    assert parity.mismatches < 1e-3 * parity.decisions


def test_neurons_that_hold_a_bias_are_a_layer_and_not_compared():
    rng = np.random.default_rng(3)
    cuba = {"tau_syn": 2e-4, "tau_mem": 4e-4, "r": 4.0, "v_leak": 0.0, "v_threshold": 0.8, "w_in": 2.0, "v_reset": 0.0}
    graph = bare(
        ("input", net.inp(5)),
        ("0", net.affine(rng.normal(0, 0.6, (7, 5)), rng.normal(0, 0.1, 7))),
        ("1", neurons(nir.CubaLIF, 7, **cuba)),
        ("output", net.out(7)),
    )
    x = rng.random((SAMPLES, STEPS, 5)) < 0.4
    record = measure(graph, x, calibration=x).record
    assert [(layer.name, layer.kind) for layer in record.layers] == [("1.bias", "bias"), ("1", "dense")]
    assert record.parity.decisions == SAMPLES * STEPS * 7
    assert record.parity.mismatches == 0


# --- from Python


@pytest.mark.parametrize(("r", "named"), [(1e-3, "0 and 1 never fired|1, 3 never fired"), (10.0, None)])
def test_a_silent_network_is_warned_of(r, named):
    graph = affine_lif(np.random.default_rng(0))
    for name in "13":
        graph.nodes[name].r[:] = r
    x = np.ones((SAMPLES, STEPS, 6), np.float32)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        measure(graph, x)
    said = [str(each.message) for each in seen if "never fired" in str(each.message)]
    assert bool(said) == (named is not None)
    assert all(re.search(f"^({named}), so accuracy .* time step \\(0.0001 s\\)", line) for line in said)


@pytest.mark.parametrize(("reset", "named"), [("subtract", True), ("zero", False)])
def test_a_chip_that_has_no_such_neurons_is_named_beside_its_times(reset, named):
    x = np.ones((SAMPLES, STEPS, 6), np.float32)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        measure(affine_lif(np.random.default_rng(0)), x, reset=reset)
    said = [str(each.message) for each in seen if "loihi1 cannot run this network" in str(each.message)]
    assert bool(said) is named
    assert all("1: reset by subtraction, and the neurons of loihi1 reset to 0" in line for line in said)


@pytest.mark.parametrize(
    ("values", "steps", "named"),
    [
        (np.eye(6)[np.arange(SAMPLES * STEPS) % 6].reshape(SAMPLES, STEPS, 6), None, True),
        (np.full((SAMPLES, STEPS, 6), 0.5), None, False),
        (np.ones((SAMPLES, 6)), STEPS, False),  # an image in black and white, presented at every step
    ],
)
def test_spikes_that_are_called_a_current_are_warned_of(values, steps, named):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        measure(affine_lif(np.random.default_rng(0)), values.astype(np.float32), analog="input", steps=steps)
    assert any("are 0 or 1 and differ from step to step, as spikes do" in str(each.message) for each in seen) is named


def test_accuracy_needs_labels():
    graph, x, _ = made("affine_lif")
    with_labels = measure(graph, x, measure(graph, x).predictions)
    assert with_labels.accuracy == 1.0
    without = measure(graph, x)
    assert without.accuracy is without.record.accuracy is None
    assert "top-1" not in str(without)
    assert "davies2018-loihi1" in str(without)
    with pytest.raises(BadInputError, match="label 3, and the decoded output has 3 values"):
        measure(graph, x, np.full(SAMPLES, 3))


def test_a_data_loader_a_dict_and_an_array_give_one_record(tmp_path):
    graph, x, _ = made("affine_lif")
    y = np.arange(SAMPLES) % 3
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    files.write(graph, tmp_path / "net.nir")
    records = [
        measure(network, inputs, labels).record
        for network, inputs, labels in (
            (graph, x, y),
            (tmp_path / "net.nir", torch.utils.data.DataLoader(tensors, batch_size=5), None),
            (compile_graph(graph, precision="float"), {"input": x}, y.tolist()),
        )
    ]
    assert all(r.layers == records[0].layers and r.accuracy == records[0].accuracy for r in records)
    assert records[0].model.sha256 == records[1].model.sha256 != records[2].model.sha256


def test_a_saved_run_passes_its_check_and_equals_that_of_the_command(tmp_path):
    graph, x, options = made("conv_if")
    y = np.arange(SAMPLES) % 4
    files.write(graph, tmp_path / "net.nir")
    measured = measure(tmp_path / "net.nir", x, y, calibration=x, **options)
    page = measured.report(tmp_path / "measured")
    assert page.name == "report.html"
    bench(
        tmp_path / "net.nir", array_set({"x": x}, y), tmp_path / "run", Settings(compiling=Reading(if_dt=1.0)),
        seed=None, calibration=x,
    )  # fmt: skip
    for out in (tmp_path / "measured", tmp_path / "run"):
        result = check(out, near=[tmp_path / "net.nir"], strict=True)
        result.raise_faults()
        record = load(out)
        assert record.parents == [sha256(tmp_path / "net.nir")]
        assert record.execution.compiling == {"if_dt": 1.0}
    comparison = compare_folders(tmp_path / "measured", tmp_path / "run")
    assert not comparison.other_data
    assert comparison.predictions == 0
    assert all(layer.same for layer in comparison.layers)
    other = x.copy()
    other[5, 0] ^= True
    changed = measure(tmp_path / "net.nir", other, y, calibration=x, **options).save(tmp_path / "changed")
    assert compare_folders(tmp_path / "run", changed).other_data == ("1 of 12 samples have different values",)
    # the quantised file says what its IF was integrated with
    again = measure(tmp_path / "run" / "quantized.nir", x, y)
    assert again.layers == measured.layers


def test_a_graph_in_memory_is_written_with_its_run(tmp_path):
    graph, x, _ = made("affine_lif")
    out = measure(graph, x).save(tmp_path / "run")
    assert load(out).model.sha256 == sha256(out / "model.nir")
    assert measure(out / "model.nir", x).layers == load(out).layers
    check(out).raise_faults()


def test_reports_speak_of_samples_and_of_no_figure_of_the_paper(tmp_path):
    graph, x, _ = made("affine_lif")
    page = measure(graph, x, np.zeros(SAMPLES, int)).report(tmp_path)
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        visible = text.partition("<body>")[2] or text
        assert "per sample" in visible
        assert "MK-SGN" not in visible
        assert " clip" not in visible.partition("<script")[0]
        assert "published GCN" not in visible
    assert load(tmp_path).claims == []


def test_what_does_not_fit_is_named_before_anything_runs():
    graph, x, _ = made("affine_lif")
    for inputs, options, fault in (
        (x[..., :5], {}, r"the array for input input has shape \(12, 9, 5\); expected \(samples, steps, 6\)"),
        (x[:, 0], {}, "samples have no time axis.*give --steps"),
        (x, {"steps": 8}, "samples have 9 steps, not 8"),
        (x * 0.5, {}, "name it in `analog`"),
        (x, {"precision": "fixed"}, "the file is not quantised"),
        (x, {"decode": "vote"}, "choose sum"),
        (x, {"analog": "image"}, "the graph has no such input"),
    ):
        with pytest.raises(BadInputError, match=fault):
            measure(graph, inputs, **options)
    with pytest.raises(BadInputError, match="dt: cannot be set for a program that is already compiled; give its graph"):
        measure(compile_graph(graph, precision="float"), x, dt=1e-3)


def test_a_student_is_measured_on_its_clips_as_the_command_does(tmp_path):
    model = student_files(tmp_path)
    measured = measure(model, some_clips(6))
    record = bench(model, some_clips(6), tmp_path / "run", Settings(), seed=None)
    assert (measured.layers, measured.accuracy) == (record.layers, record.accuracy.top1)
    assert measured.record.parity == record.parity
    assert measured.record.student


# --- a run's folder


@pytest.fixture
def folder(tmp_path):
    graph, x, _ = made("affine_lif")
    files.write(graph, tmp_path / "net.nir")
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(SAMPLES) % 3)
    return tmp_path


def test_the_commands_take_it(folder, run_command):
    def command(*words, code=0):
        printed = run_command("bench", *words, code=code)
        return printed.out + printed.err

    data = f"npz:{folder / 'data.npz'}"
    options = ("--data", data, "--backend", "emulator")
    text = command("run", folder / "net.nir", *options, "-o", folder / "run", code=2)
    assert "--calibration" in text
    text = command("run", folder / "net.nir", *options, "--calibration", data, "-o", folder / "run")
    assert "running 12 samples on emulator, fixed point" in text
    assert "time step 0.0001 s, by --dt or its default; the file gives none" in text
    assert "syn_ops per sample" in text
    command("run", folder / "net.nir", *options, "--precision", "float", "-o", folder / "float")
    assert "no fault found" in command("check", folder / "run", "--strict", "--near", folder / "net.nir")
    text = command("compare", folder / "float", folder / "run", "--max-rise-spikes", "1", "--max-drop-accuracy", "1")
    assert "per sample" in text
    assert "clip" not in text.replace("data.clips", "")
    command("compare-chip", folder / "run", "--template", folder / "counts.yaml")
    text = command("run", folder / "net.nir", *options, "--precision", "float", "--decode", "last", "-o", folder / "l")
    assert json.loads((folder / "l" / "run.json").read_text())["execution"]["decode"] == "last"
    assert command("run", folder / "net.nir", "--data", f"{folder / 'data.npz'}", code=2).count("npz:") == 1


def test_a_run_is_resumed_on_the_same_data_only(folder):
    graph_file, settings = folder / "net.nir", Settings(precision="float")
    x = np.load(folder / "data.npz")["x"]

    def again(out, data, **kwargs):
        return bench(graph_file, ArraySamples(data), out, settings, seed=None, shard=1, **kwargs)

    first = again(folder / "run", array_set({"x": x}))
    assert again(folder / "run", array_set({"x": x}), resume=True) == first
    other = x.copy()
    other[5, 3, 2] ^= True  # neither the first sample nor the last
    with pytest.raises(BadInputError, match=r"begun with arrays .*give the same to --resume"):
        again(folder / "run", array_set({"x": other}), resume=True)
    before = {p.name: p.read_bytes() for p in (folder / "run").iterdir()}
    shutil.copytree(folder / "run", folder / "copy")
    assert {p.name: p.read_bytes() for p in (folder / "copy").iterdir()} == before


def test_placement_of_a_foreign_network_is_in_the_record():
    graph, x, options = made("conv_if")
    record = measure(graph, x, chip="loihi1", **options).record
    placed = place(compile_graph(graph, precision="float", **options), LOIHI2)
    assert record.placement.chip == "loihi1"
    assert record.placement.cores == placed.cores


def test_a_network_is_timed_on_a_chip_of_ones_own():
    graph, x, options = made("conv_if")
    chip = chip_named("our-chip", known_chips([EXAMPLES / "own_chip" / "chip.yaml"]))
    models = known_timing_models([EXAMPLES / "own_chip" / "timing_models.yaml"])
    record = measure(graph, x, chip=chip, timing_models=models[-1:], **options).record
    (timing,) = record.timing
    assert (timing.model, timing.chip) == ("our-chip-clock", "our-chip")
    assert timing.placements[0].cores == record.placement.cores
    assert timing.placements[0].step_us.lower > timing.barrier_us == 0.5
