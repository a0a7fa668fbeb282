"""An snnTorch network on scikit-learn's digits: is it right on a chip's integers, and what does it spend?

Needs `pip install 'mksgn[interop,report]'`. Runs in Lava too where it is installed; elsewhere the folder
that it writes holds the quantised network for a machine that has it.
"""

from importlib.util import find_spec

import snntorch as snn
import torch
from sklearn.datasets import load_digits
from snntorch import utils
from snntorch.export_nir import export_to_nir

from mksgn.bench import measure

TRAIN, STEPS = 1400, 25
torch.manual_seed(0)
x, y = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
x = (x / 16).float()


def layer(inputs: int, outputs: int) -> list[torch.nn.Module]:
    """snnTorch exports a parameter per neuron: beta and threshold are vectors, not numbers."""
    beta, threshold = torch.full((outputs,), 0.9), torch.ones(outputs)
    return [torch.nn.Linear(inputs, outputs), snn.Leaky(beta, threshold, init_hidden=True, reset_mechanism="zero")]


net = torch.nn.Sequential(*layer(64, 128), *layer(128, 64), *layer(64, 10))


def spikes(images: torch.Tensor) -> torch.Tensor:
    """Count the spikes of each class when an image is presented at every step."""
    utils.reset(net)
    return torch.stack([net(images) for _ in range(STEPS)]).sum(0)


optimizer = torch.optim.Adam(net.parameters(), 2e-3)
for _ in range(20):
    for rows in torch.randperm(TRAIN).split(64):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(spikes(x[rows]), y[rows]).backward()
        optimizer.step()

# from here on: README.md
images, labels = x[TRAIN:], y[TRAIN:]
print(f"torch {(spikes(images).argmax(1) == labels).float().mean():.1%}")

graph = export_to_nir(net, x[0])
given = {"steps": STEPS, "analog": "input"}  # an image is a current, presented at every step
runs = {"float": measure(graph, images, labels, **given)}
runs["fixed"] = measure(graph, images, labels, calibration=x[:TRAIN], **given)
if find_spec("lava"):
    runs["Lava"] = measure(graph, images, labels, calibration=x[:TRAIN], backend="lava", **given)
for name, run in runs.items():
    print(f"{name} {run.accuracy:.1%}, {run.record.totals.syn_ops:,.0f} synaptic operations per image")
print(runs["fixed"])  # the energy under every model; one alone: runs["fixed"].energy["davies2018-loihi1"].priced_mJ
print(runs["fixed"].report("runs/digits"))
