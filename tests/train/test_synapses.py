"""A student's fan-out is that of the program which it is compiled to."""

from math import prod

import pytest
import torch

from mksgn.deploy import compile_graph
from mksgn.export import export_to_nir
from mksgn.train.synapses import fan_out
from tests.support.students import tiny


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": "none"},
        {"attention": "token"},
        {"adjacency": "learned", "kernel": 5},
        {"streams": ("joint",), "frames": 5, "widths": (4, 8, 16)},  # strides that do not divide the frames
    ],
    ids=["attention", "no attention", "token attention", "learned adjacency", "odd frames"],
)
def test_fan_out_is_that_of_the_compiled_program(changes):
    model, _ = tiny(**changes)
    for sgc, _ in model.student.blocks:  # a free entry starts at 0, where there is no synapse yet
        torch.nn.init.uniform_(sgc.graph.adjacency)
    program = compile_graph(export_to_nir(model), precision="float")
    synapses = {population.name: 0 for population in program.populations if program.sends_spikes(population.name)}
    for population in program.populations:
        for projection in program.into(population.name):
            for source, counts in zip(projection.sources, program.fan_outs(projection), strict=True):
                if source in synapses:
                    synapses[source] += int(counts.sum())
    expected = {name: mean * prod(program[name].shape) for name, mean in fan_out(model.student).items()}
    assert expected == pytest.approx(synapses)
