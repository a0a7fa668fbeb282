"""mksgn/deploy/event_counts: a spike counts where it is sent, a synaptic operation where the spike arrives."""

import nir
import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from tests.support.graphs import DT, F32, chain, graph, inp, lif, linear, out, spikes

STEPS = 6


def delayed(delay: int):
    return chain(
        ("x", inp(3)),
        ("wait", nir.Delay(np.full(3, delay * DT, F32))),
        ("d", linear(np.ones((2, 3)))),
        ("l", lif(2)),
        ("y", out(2)),
    )


@pytest.mark.parametrize("backend", ["emulator", "lava"])
@pytest.mark.parametrize("delay", [0, 2, STEPS, STEPS + 1])
def test_spikes_that_a_delay_holds_back_beyond_the_sample_are_sent_and_not_delivered(backend, delay):
    if backend == "lava":
        pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    x = spikes(np.random.default_rng(delay), 3, STEPS, 3, rate=0.5)
    counters = run(compile_graph(delayed(delay), precision="float"), x, backend=backend).counters
    assert counters["x"].spikes == x.sum()
    assert counters["l"].syn_ops == 2 * x[:, : max(0, STEPS - delay)].sum()


def test_spikes_of_the_last_step_do_not_come_back_in_a_loop():
    g = graph(
        {"x": inp(1), "d": linear(np.eye(1)), "l": lif(1, threshold=0.25), "back": linear(np.eye(1)), "y": out(1)},
        [("x", "d"), ("d", "l"), ("l", "back"), ("back", "l"), ("l", "y")],
    )
    x = np.ones((2, STEPS, 1))
    counters = run(compile_graph(g, precision="float"), x).counters
    assert counters["l"].spikes == 2 * STEPS
    assert counters["l"].syn_ops == 2 * STEPS + 2 * (STEPS - 1)
