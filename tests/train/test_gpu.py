"""Neurons on a GPU: Triton's kernels give the spikes and gradients of torch's operations, here in Triton's
interpreter on the CPU; and a recorded training step those of the same step launched operation by operation.
"""

from pathlib import Path

import pytest
import torch

from mksgn.train import config, loop
from mksgn.train.datasets import synthetic
from tests.support.triton_interpreter import assert_same

CASES = """
import torch
from mksgn.train.gpu import gpu_lif
from mksgn.train.neurons import _LIFSequence

torch.manual_seed(0)
for steps in (1, 3, 4):
    for own, other in dict.fromkeys([(steps, 0), (1, 0), (steps, steps), (1, steps), (steps, 1), (1, 1)]):
        for rates in (False, True)[: 2 if max(own, other) == 1 else 1]:
            for threshold, tau in ((1.0, 2.0), (0.7, 4.0)):
                currents = [(2 * torch.randn(n, 2, 3, 350) + 0.7).requires_grad_() for n in (own, other) if n]
                spikes = gpu_lif(currents, steps, tau, torch.tensor(threshold), 4.0, rates=rates)
                total = sum(x.expand(steps, *x.shape[1:]) for x in currents)
                expected = _LIFSequence.apply(total, tau, torch.tensor(threshold), 4.0)
                expected = expected.mean(0, keepdim=True) if rates else expected
                assert torch.equal(spikes, expected), (steps, own, other, rates)
                direction = torch.randn_like(spikes)
                for a, b in zip(torch.autograd.grad(spikes, currents, direction),
                                torch.autograd.grad(expected, currents, direction), strict=True):
                    assert (a - b).abs().max() <= 1e-6 * b.abs().max(), (steps, own, other, rates)
print("same")
"""


@pytest.mark.slow
def test_the_kernels_in_tritons_interpreter():
    assert_same(CASES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_recorded_training_learns_as_one_launched_step_by_step(tmp_path: Path, monkeypatch):
    clips = synthetic.read(60, "train")
    settings = config.load("demo", epochs=4, changes=["rate_phase=0.5"])
    losses = []
    for name in ("recorded", "direct"):
        lines: list = []
        if name == "direct":
            monkeypatch.setattr(loop.Trainer, "recordable_passes", lambda self: self.forward_and_backward)
        loop.train(settings, clips, clips, tmp_path / name, device="cuda", report=lines.append)
        losses.append([line["loss"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)  # a GPU adds in no fixed order, and spikes amplify it
