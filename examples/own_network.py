"""A network of your own: is it right on a chip's integers, and what does it spend?

Trains three layers of leaky integrate-and-fire neurons on images of digits, exports them to NIR, and measures them. Where
snnTorch is installed, the neurons are snnTorch's and its exporter writes the graph. Otherwise the same neuron is in plain
torch and the graph is written by hand, as for a framework without an exporter. A minute on two cores, part of it in Lava.

    python examples/own_network.py          # writes runs/own_network/
"""

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import torch

from mksgn.bench import measure
from mksgn.deploy.backends import lava_installed
from mksgn.export import write_nir

OUT = Path("runs/own_network")
TRAIN, TEST, STEPS = 1400, 400, 12
SIZES, BETA = (64, 128, 64, 10), 0.875  # 1 - 1/8, which Loihi's decay of 12 bits represents exactly
DT = 1e-4  # seconds per time step, as snnTorch exports it to NIR
# Ten digits of 3 x 5 pixels, a row of three bits in each octal digit.
GLYPHS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71122", "75757", "75717")


def digits(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw digits at random places of an 8 x 8 image, with noise; return images (count, 64) in [0, 1] and labels."""
    rng = np.random.default_rng(seed)
    bits = np.array([[[int(row) >> b & 1 for b in (2, 1, 0)] for row in glyph] for glyph in GLYPHS], np.float32)
    labels = rng.integers(10, size=count)
    images = np.zeros((count, 8, 8), np.float32)
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers((2, 3))
        image[top : top + 5, left : left + 3] = bits[label]
    noisy = np.clip(0.8 * images + rng.normal(0, 0.12, images.shape), 0, 1).astype(np.float32)
    return torch.from_numpy(noisy.reshape(count, 64)), torch.from_numpy(labels)


class Spike(torch.autograd.Function):
    """Heaviside step; its gradient is that of a fast sigmoid."""

    @staticmethod
    def forward(ctx, distance):
        ctx.save_for_backward(distance)
        return (distance > 0).float()

    @staticmethod
    def backward(ctx, gradient):
        (distance,) = ctx.saved_tensors
        return gradient / (1 + 10 * distance.abs()) ** 2


class Leaky(torch.nn.Module):
    """v = BETA v + x; where v exceeds 1 the neuron fires and v becomes 0."""

    membrane: torch.Tensor | float = 0.0

    def forward(self, x):
        v = BETA * self.membrane + x
        spikes = Spike.apply(v - 1)
        self.membrane = v * (1 - spikes.detach())
        return spikes


def neurons(count: int) -> torch.nn.Module:
    """Make a population; snnTorch exports a parameter per neuron, so beta and threshold are vectors."""
    if not find_spec("snntorch"):
        return Leaky()
    import snntorch

    beta, threshold = torch.full((count,), BETA), torch.ones(count)
    return snntorch.Leaky(beta, threshold, init_hidden=True, reset_mechanism="zero")


def network() -> torch.nn.Sequential:
    """Make linear layers, each followed by its neurons."""
    torch.manual_seed(0)
    return torch.nn.Sequential(*(m for i, o in pairwise(SIZES) for m in (torch.nn.Linear(i, o), neurons(o))))


def output(net: torch.nn.Sequential, images: torch.Tensor) -> torch.Tensor:
    """Present an image at every step, from rest; return the spikes of the last layer, (images, steps, 10)."""
    for module in net:
        if isinstance(module, Leaky):
            module.membrane = 0.0
    if find_spec("snntorch"):
        from snntorch import utils

        utils.reset(net)
    return torch.stack([net(images) for _ in range(STEPS)], 1)


def train(net: torch.nn.Sequential, images: torch.Tensor, labels: torch.Tensor, epochs: int = 10) -> None:
    """Train by back-propagation through time on the spike counts."""
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(output(net, images[rows]).sum(1), labels[rows]).backward()
            optimizer.step()


def graph_of(net: torch.nn.Sequential) -> nir.NIRGraph:
    """Export to NIR. Written by hand, NIR's v += dt/tau (v_leak + r x - v) has to equal v = BETA v + x."""
    if find_spec("snntorch"):
        from snntorch.export_nir import export_to_nir

        return export_to_nir(net, torch.zeros(1, SIZES[0]), ignore_dims=[0])
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array([SIZES[0]])})}
    for index, module in enumerate(net):
        if isinstance(module, torch.nn.Linear):
            nodes[f"fc{index // 2}"] = nir.Affine(module.weight.detach().numpy(), module.bias.detach().numpy())
        else:
            one = np.ones(SIZES[index // 2 + 1], np.float32)
            nodes[f"lif{index // 2}"] = nir.LIF(one * DT / (1 - BETA), one / (1 - BETA), 0 * one, one, 0 * one)
    nodes["output"] = nir.Output({"output": np.array([SIZES[-1]])})
    return nir.NIRGraph(nodes, [*pairwise(nodes)])


def main() -> None:
    """Train, export, measure in float and in integers, and write what the commands need."""
    x, y = digits(TRAIN + TEST, seed=0)
    net = network()
    print(f"training on {TRAIN} images")
    train(net, x[:TRAIN], y[:TRAIN])
    print(f"torch {(output(net, x[TRAIN:]).sum(1).argmax(1) == y[TRAIN:]).double().mean():.1%}")

    graph = graph_of(net)
    given = {"steps": STEPS, "analog": "input"}  # an image is a current, presented at every step
    runs = {"float": measure(graph, x[TRAIN:], y[TRAIN:], **given)}
    runs["fixed"] = measure(graph, x[TRAIN:], y[TRAIN:], calibration=x[:TRAIN], **given)
    if lava_installed():
        print(f"running {TEST} images in Lava")
        runs["Lava"] = measure(graph, x[TRAIN:], y[TRAIN:], calibration=x[:TRAIN], backend="lava", **given)
    for name, run in runs.items():
        print(f"{name} {run.accuracy:.1%}, {run.record.totals.syn_ops:,.0f} synaptic operations per image")
    print(runs["fixed"])

    OUT.mkdir(parents=True, exist_ok=True)
    write_nir(graph, OUT / "net.nir")
    np.savez(OUT / "samples.npz", x_train=x[:TRAIN], y_train=y[:TRAIN], x_test=x[TRAIN:], y_test=y[TRAIN:])
    print(runs["fixed"].report(OUT / "fixed"))


if __name__ == "__main__":
    main()
