"""mksgn-deploy --to sana-fe: the files hold the emulator's network, spike for spike, and name what they cannot."""

import json
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given, reject, settings
from typer.testing import CliRunner

from mksgn.deploy import compile_graph, run
from mksgn.deploy.benchmark.networks import conv_chain, dense_chain, spike_inputs
from mksgn.deploy.cli import app
from mksgn.deploy.errors import DeployError
from mksgn.deploy.placement.chips import LOIHI1
from mksgn.deploy.sana_fe.limits import INPUTS_PER_CORE
from mksgn.deploy.sana_fe.network import placed, write_network
from mksgn.export.graph import files
from tests.deploy.test_any_graph import RANDOM
from tests.support.graphs import DT, F32, chain, inp, linear, out, quantised_student_like
from tests.support.programs import quantised_lif, quantised_metadata, recurrent_loop, residual_chain
from tests.support.random_programs import random_programs
from tests.support.refusals import refusal
from tests.support.sana_fe_files import read, run_file
from tests.support.tiers import examples


def written(program, inputs, folder: Path):
    """Run a program, write its files, and return the execution, the files and what network.json says."""
    execution = run(program, inputs)
    paths = write_network(program, inputs, execution, folder)
    return execution, paths, json.loads((folder / "network.json").read_text())


def assert_same_spikes(program, execution, paths, facts):
    for sample, path in enumerate(paths):
        fired = run_file(path, facts["steps"])
        for name, where in facts["populations"].items():
            if name not in execution.spikes:
                continue
            first, last = where["first_step"], where["last_step"]
            train = execution.spikes[name][sample].reshape(execution.steps, -1)
            assert all(step >= first for step, _ in fired[where["group"]]), f"{name} fires before its window"
            found = {(step - first, i) for step, i in fired[where["group"]] if step <= last}
            assert found == set(zip(*(x.tolist() for x in train.nonzero()), strict=True)), name


@pytest.mark.parametrize("graph", [dense_chain(2, 12), conv_chain(2, 3, 5, 3, 3), residual_chain()])
def test_the_files_fire_as_the_emulator_does(graph, tmp_path):
    program = compile_graph(graph)
    shape = program.inputs[0].shape
    inputs = np.random.default_rng(1).random((2, 4, *shape)) < 0.4
    execution, paths, facts = written(program, inputs, tmp_path)
    assert sum(execution.spikes[p.name].sum() for p in program.neurons) > 0
    assert_same_spikes(program, execution, paths, facts)


@settings(RANDOM, max_examples=examples(40, 4))
@given(random_programs(without={"attention", "cubalif"}))
def test_random_networks_fire_as_in_the_emulator_or_are_refused(tmp_path_factory, network):
    program = compile_graph(network.graph, dt=network.dt, if_dt=network.if_dt)
    try:
        placed(program)
    except DeployError:
        reject()
    named = {name: x[:1] for name, x in network.inputs.items()}
    assert_same_spikes(program, *written(program, named, tmp_path_factory.mktemp("sana-fe")))


def test_every_neuron_has_a_core_and_every_input_a_unit_of_its_own(tmp_path):
    graph = conv_chain(1, 4, 40, 10, 1)  # 1,600 inputs: two cores
    program = compile_graph(graph)
    _, (path,), facts = written(program, spike_inputs(graph, 1), tmp_path)
    groups, placement = read(path), placed(program)
    inputs = groups[facts["populations"]["input"]["group"]]
    assert len({(n["core"], n["soma_hw_name"]) for n in inputs}) == len(inputs) == 1600
    tile, core = divmod(placement.cores, 4)
    assert str(inputs[0]["core"]) == f"{tile}.{core}"  # behind the network's cores
    assert inputs[INPUTS_PER_CORE]["core"] != inputs[0]["core"]
    (population,) = placement.populations
    cores = [f"{c // 4}.{c % 4}" for c in population.core_of().reshape(-1)]
    assert [str(n["core"]) for n in groups[facts["populations"]["lif1"]["group"]]] == cores
    synapses = sum(len(n["out"]) for n in inputs)
    assert synapses == program.fan_outs(program.projections[0])[0].sum()


def one_layer(*before, weight: int = 2, **changes):
    """A program of a layer of two neurons, whose parameters are changed."""
    net = chain(
        ("x", inp(20)), *before, ("d", linear(np.full((2, 20), weight))), ("l", quantised_lif(10, 1, 2)), ("y", out(2)),
        **quantised_metadata(l=0),
    )  # fmt: skip
    program = compile_graph(net)
    layer = program["l"]
    return program.with_populations({"l": replace(layer, neuron=replace(layer.neuron, **changes))})


def student():
    return compile_graph(quantised_student_like(np.random.default_rng(0))[1])


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (student, "attention's product has no neuron in SANA-FE"),
        (lambda: compile_graph(recurrent_loop()), "acts within the time step of"),
        (lambda: compile_graph(dense_chain(1, 4), reset="subtract"), "reset by subtraction"),
        (lambda: compile_graph(dense_chain(1, 4), precision="float"), "a float program has no integer weights"),
        (lambda: compile_graph(conv_chain(1, 64, 64, 40, 3)), f"exceed the {LOIHI1.cores} of its one chip"),
        (lambda: one_layer(("wait", nir.Delay(np.full(20, 6 * DT, F32)))), "synaptic delay (6) exceeds limit (5)"),
        (lambda: one_layer(du=1000), "its synaptic current has a memory"),
        (lambda: one_layer(initial=np.full(2, 64, np.int32)), "starts from a membrane other than 0"),
    ],
)
def test_what_sana_fe_cannot_take_is_named(program, words):
    message = refusal(lambda: placed(program()))
    assert message.startswith("SANA-FE: ")
    assert words in message


def test_a_membrane_that_loihi_clips_is_named(tmp_path):
    program = one_layer(weight=254, dv=0, vth=np.array(131071))
    message = refusal(lambda: written(program, np.ones((1, 40, 20), bool), tmp_path))
    assert "Loihi's 24 bits clip it" in message


def test_the_command_writes_them_beside_the_run(tmp_path):
    files.write(dense_chain(1, 8), tmp_path / "net.nir")
    np.save(tmp_path / "x.npy", spike_inputs(dense_chain(1, 8), 3))
    words = [tmp_path / "net.nir", "--inputs", tmp_path / "x.npy", "--backend", "emulator", "--to", "sana-fe"]
    done = CliRunner().invoke(app, [*map(str, words), "-o", str(tmp_path / "run")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "sample-2.yaml and network.json for SANA-FE" in " ".join(done.output.split())
    assert len(list((tmp_path / "run" / "sana-fe").glob("sample-*.yaml"))) == 3
    message = refusal(lambda: CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False))
    assert message.startswith("--to sana-fe writes")
    refused = CliRunner().invoke(app, [*map(str, words), "-o", str(tmp_path / "run"), "--to", "brian"])
    assert (refused.exit_code, "choose one of sana-fe" in refused.output) == (2, True)
