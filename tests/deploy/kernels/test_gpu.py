"""The GPU's kernel, run by Triton's interpreter on the CPU, gives the spikes, counts and maxima of the CPU's.

On a machine with a GPU, `python -m mksgn.bench.gpu_check` compares whole networks.
"""

import pytest

from tests.support.triton_interpreter import assert_same

CASES = """
import numpy as np, torch
from mksgn.deploy.kernels.gpu import GpuPopulation
from mksgn.deploy.kernels.population import FusedPopulation
from tests.deploy.kernels.test_attention import attention
from tests.deploy.kernels.test_population import KINDS, draw

def compare(program, arrivals_of, size, extra):
    y = program["y"]
    gpu = GpuPopulation(program, y, torch.device("cpu"))
    cpu = FusedPopulation(program, y)
    a = cpu.run(arrivals_of(cpu), extra, size)
    left = [q for q in program.into("y") if q not in gpu.projections]
    for q in left:
        x = [x for x, _ in arrivals_of(cpu)]
        current = q.current(tuple(t.flatten(0, 1) for t in x)).unflatten(0, size)
        extra = current if extra is None else extra + current
    b = gpu.run(arrivals_of(gpu), extra, size)
    assert torch.equal(a.spikes, b.spikes)
    assert np.array_equal(a.per_neuron, b.per_neuron)
    assert (a.max_current, a.max_membrane) == (b.max_current, b.max_membrane)

for seed, kind in enumerate(KINDS):
    program, inputs, rng, size = draw(kind, seed, halving=seed % 2 == 0, remembers=seed % 3 == 0, wide=True)
    extra = torch.from_numpy(rng.integers(-500, 500, (*size, *program["y"].shape))) if seed % 2 else None
    delays = [int(d) for d in rng.integers(-1, 3, len(program.projections))]
    compare(program, lambda f: [(inputs[q.sources[0]], d) for q, d in zip(f.projections, delays)], size, extra)
rng = np.random.default_rng(0)
for part in ("m", "z"):
    program = attention(part, 2, 4, 5, rng)
    spikes = [torch.from_numpy((rng.random((3, 2, *program[s].shape)) < 0.3).astype(np.uint8))
              for s in program.projections[0].sources]
    compare(program, lambda f: [(x, 0) for x in spikes] if f.projections else [], (3, 2), None)
print("same")
"""


@pytest.mark.slow
def test_the_kernel_in_tritons_interpreter():
    assert_same(CASES)
