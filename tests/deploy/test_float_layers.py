"""An unquantised student in deploy's float32, layer by layer on torch's own spikes: what rounds
apart lies at its threshold.
"""

import numpy as np
import torch

from mksgn.deploy import Program, compile_graph, run
from mksgn.deploy.program.neurons import prepare
from mksgn.export import export_to_nir
from mksgn.export.verification.verify import torch_spikes
from tests.support.students import tiny

SHARE, MARGIN = 1e-6, 1e-5


def decisions_apart(program: Program, inputs: np.ndarray, spikes: dict[str, np.ndarray]) -> tuple[int, int, float]:
    """(differing, all, largest distance of a differing one to its threshold) with torch's spikes
    (clips, steps, *shape) as every layer's inputs and resets."""
    apart, every, furthest = 0, 0, 0.0
    for population in program.neurons:
        expected = torch.from_numpy(spikes[population.name])
        state = prepare(population.neuron)
        current = None
        for projection in program.into(population.name):
            sources = [inputs if s == "input" else spikes[s] for s in projection.sources]
            flat = [torch.from_numpy(np.array(x, dtype=np.float32)).flatten(0, 1) for x in sources]
            y = projection.current(tuple(flat)).unflatten(0, expected.shape[:2])
            current = y if current is None else current + y
        membrane = state.start(current[:, 0])
        for t in range(expected.shape[1]):
            s, _, h = state.step(current[:, t], membrane)
            membrane = type(membrane)(h * ~expected[:, t])
            differ = s.bool() != expected[:, t]
            distance = ((h - state.threshold).abs() / state.threshold.abs()).expand_as(h)[differ]
            apart, every = apart + int(differ.sum()), every + differ.numel()
            furthest = max([furthest, *distance.tolist()])
    return apart, every, furthest


def test_each_layer_fires_as_torch_does_on_the_spikes_of_torch():
    model, inputs = tiny(stream_channels=4, widths=(8, 16), frames=8)
    program = compile_graph(export_to_nir(model), precision="float")
    x = np.broadcast_to(inputs[:, None], (len(inputs), 4, *inputs.shape[1:]))
    spikes = torch_spikes(model.student, inputs)[0]
    apart, every, furthest = decisions_apart(program, x, spikes)
    assert every > 500_000
    assert apart <= SHARE * every
    assert furthest <= MARGIN
    # run as a whole, only decisions at their threshold could differ: here none does
    execution = run(program, x)
    assert (
        sum(int((execution.spikes[name] != train).sum()) for name, train in spikes.items() if name in execution.spikes)
        == 0
    )
