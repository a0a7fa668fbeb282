"""Real Lava Processes against the emulator: every spike, every counter, whatever the slots."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lava", reason="lava-nc is not installed: make setup")

from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from mksgn.deploy.lava import network
from mksgn.deploy.lava.guard.runtime import LavaRuntimeError
from mksgn.deploy.lava.leaf_work import LeafPlan
from mksgn.deploy.lava.messages import Layout
from mksgn.deploy.lava.processes.leaf import Leaf
from mksgn.deploy.lava.results import ResultWriter
from mksgn.deploy.passes.schedule import schedule
from mksgn.deploy.program.program import Projection
from mksgn.deploy.stepper import Step
from mksgn.export import export_to_nir
from mksgn.export.verification.verify import compare
from tests.support.graphs import attention, conv, inp, lif, linear, out
from tests.support.graphs import graph as graph_of
from tests.support.students import calibration, tiny
from tests.support.tiers import one_in


@pytest.fixture(scope="module")
def exported():
    model, inputs = tiny(stream_channels=2, widths=(4, 8), frames=6)
    graph = export_to_nir(model, quantize=8, calibration=calibration(model, 4))
    return graph, np.broadcast_to(inputs[:, None], (len(inputs), 4, *inputs.shape[1:]))


def same(a, b) -> None:
    parity = compare("lava", a.spikes, b.spikes)
    assert parity.mismatches == 0, [layer for layer in parity.layers if layer.mismatches]
    assert parity.decisions == sum(s.size for s in a.spikes.values()) > 0
    for name, counters in a.counters.items():
        for field in dataclasses.fields(counters):
            np.testing.assert_array_equal(
                getattr(b.counters[name], field.name), getattr(counters, field.name), f"{name}.{field.name}"
            )
    for name, values in a.outputs.items():
        np.testing.assert_array_equal(b.outputs[name], values)


@pytest.mark.parametrize("precision", ["fixed", "float"])
def test_lava_gives_the_emulators_spikes_and_counters(exported, precision):
    graph, inputs = exported
    program = compile_graph(graph, precision=precision)
    emulated = run(program, inputs)
    assert all(c.spikes for n, c in emulated.counters.items() if n not in ("input", "readout")), "a silent population"
    same(emulated, run(program, inputs, backend="lava"))


@pytest.mark.parametrize(("samples", "slots"), one_in(3, [(5, 2), (1, 4), (3, 3)]))
def test_slots_and_sample_counts_that_do_not_divide(exported, samples, slots):
    graph, inputs = exported
    program = compile_graph(graph)
    same(run(program, inputs[:samples]), network.execute(program, {"input": inputs[:samples]}, slots=slots))


def test_progress_counts_every_sample_once(exported):
    graph, inputs = exported
    seen: list[int] = []
    execution = network.execute(compile_graph(graph), {"input": inputs}, progress=seen.append, record=False)
    assert sum(seen) == len(inputs)
    assert execution.spikes == {}
    assert execution.counters["smf"].spikes > 0


@pytest.mark.slow
def test_a_parent_that_used_several_threads_does_not_make_a_child_wait_for_them(tmp_path):
    """So wide that torch would use several threads in both Process models, and a fork does not inherit threads."""
    code = """
import numpy as np, torch
torch.set_num_threads(2)
from mksgn.deploy import compile_graph, emulator
from mksgn.deploy.benchmark.networks import conv_chain, spike_inputs
from mksgn.deploy.lava import network
network.DEADLINE_S = 10.0
torch.ones(4_000_000).add_(1).sum()
graph = conv_chain(layers=2, channels=64)
program, x = compile_graph(graph), {"input": spike_inputs(graph, 8)}
expected, actual = emulator.execute(program, x), network.execute(program, x, slots=8)
assert expected.spikes["lif2"].any()
assert all(np.array_equal(actual.spikes[name], train) for name, train in expected.spikes.items())
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_delays_are_what_makes_it_right(exported):
    """With the balanced delays taken away, spikes of different steps mix: the comparison above can fail."""
    graph, inputs = exported
    program = compile_graph(graph)
    unbalanced = dataclasses.replace(
        program,
        projections=tuple(
            dataclasses.replace(p, compensation_delay=0)
            if isinstance(p, Projection)
            else dataclasses.replace(p, compensation_delays=(0,) * len(p.compensation_delays))
            for p in program.projections
        ),
    )
    with pytest.raises(DeployError, match="arrive at another step; run the balance pass first"):
        network.execute(unbalanced, {"input": inputs})
    late = run(unbalanced, inputs)  # the emulator follows the delays that are there
    assert compare("unbalanced", run(program, inputs).spikes, late.spikes).mismatches > 0


def test_an_error_inside_a_leaf_reaches_the_user_with_its_traceback(exported, monkeypatch):
    graph, inputs = exported
    write = ResultWriter.write

    def fail(writer: ResultWriter, index: int, step: Step) -> None:
        if step.population.name == "block1_sgc" and index == 2:
            raise ValueError("no place for these results")
        write(writer, index, step)

    monkeypatch.setattr(ResultWriter, "write", fail)  # the leaves' processes inherit it
    with pytest.raises(LavaRuntimeError, match="block1_sgc") as caught:
        run(compile_graph(graph), inputs, backend="lava")
    assert "Traceback" in caught.value.traceback
    assert "no place for these results" in caught.value.traceback


def test_float_population_in_a_fixed_model_is_refused(exported):
    graph, _ = exported
    program = compile_graph(graph, precision="float")
    host = Layout((program["ssc"],), 1, "fixed")
    sends = Layout((program["smf"],), 1, "fixed")
    window = schedule(program, 1, 4)["smf"]
    plan = LeafPlan(program, (program["smf"],), [host], sends, window, 1, 1, set())
    leaf = Leaf(plan=plan, name="smf")
    config = network.Loihi2SimCfg(select_tag="fixed_pt")
    with pytest.raises(LavaRuntimeError, match="select the other tag"), network.GuardedRuntime(leaf, config) as runtime:
        runtime.run(1)


def test_more_slots_than_a_byte_counts(exported):
    graph, inputs = exported
    with pytest.raises(DeployError, match=r"slots \(256\) exceed 255"):
        network.execute(compile_graph(graph), {"input": np.repeat(inputs[:1], 256, axis=0)}, slots=256)


def test_a_loop_on_the_host_and_attention_within_a_loop_count_alike():
    rng = np.random.default_rng(3)
    on_host = graph_of(
        {
            "x": inp(4, analog=True), "a": linear(rng.normal(0.3, 1, (3, 4))), "n": lif(3, threshold=0.4),
            "back": linear(rng.normal(0.2, 1, (3, 3))), "b": linear(rng.normal(0.3, 1, (3, 3))), "m": lif(3, threshold=0.3),
            "y": out(3),
        },
        [("x", "a"), ("a", "n"), ("n", "back"), ("back", "n"), ("n", "b"), ("b", "m"), ("m", "y")],
    )  # fmt: skip
    attended = graph_of(
        {
            "x": inp(2, 2, 3), "c": conv(rng.normal(0.4, 1, (12, 2, 1, 1))), "qkv": lif(12, 2, 3, threshold=0.3),
            "att": attention(2, threshold_m=0.25, threshold_z=0.25), "back": conv(rng.normal(0.3, 1, (12, 4, 1, 1))),
            "y": out(4, 2, 3),
        },
        [("x", "c"), ("c", "qkv"), ("qkv", "att"), ("att", "back"), ("back", "qkv"), ("att", "y")],
    )  # fmt: skip
    for net, x in (
        (on_host, rng.normal(0.5, 1, (3, 5, 4)).astype(np.float32)),
        (attended, rng.random((3, 5, 2, 2, 3)) < 0.6),
    ):
        program = compile_graph(net, precision="float")
        emulated = run(program, x)
        same(emulated, run(program, x, backend="lava"))
        assert sum(c.syn_ops for c in emulated.counters.values()) > 0
    assert emulated.counters["att.m"].coincidences > 0
