"""Parameters, MACs and firing rates per population, and populations that can't fire, before or
after training.

MACs are the multiply-accumulates of the dense computation in torch, for one body of one clip, as
fvcore and torch's FLOP counter count them, including the zeros of padding and adjacency. The paper's
formula multiplies the MACs of a population with binary input by firing rate and S; those of the
first layer and the read-out have real inputs. `mksgn-deploy --describe` counts a chip's synapses.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mksgn.train.layers import SSC, ConvBN, GraphConvBN, SpikingSelfAttention, SpikingTokenAttention, folded_norm
from mksgn.train.streams import INTEGER_LIMIT, LATTICE_EXPONENT
from mksgn.train.student import Student
from mksgn.train.teacher import Teacher

SILENT_RATE = 1e-4  # populations that fire less than this are listed


@dataclass(frozen=True)
class Described:
    """One population (or the read-out). `rate` and `unreachable` are None where nothing spikes.

    `parameters`: trainable ones. `macs`: per body and pass through the layer. `passes`: passes per
    clip (S or 1). `unreachable`: share of neurons whose membrane stays below the threshold for any
    input spikes.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    passes: int
    rate: float | None = None
    unreachable: float | None = None


def student_layers(student: Student, bodies: Tensor) -> list[Described]:
    """Describe a student in evaluation mode, with its firing rates on `bodies` (L, 3 · streams, T,
    V)."""
    spikes: dict[str, Tensor] = {}
    with torch.no_grad():
        student.eval()(bodies, spikes)
    steps = student.config.steps
    rows = []
    for name, modules, macs in _populations(student):
        s = spikes[name]
        highest = largest_membrane(student, name)
        rows.append(
            Described(
                name=name,
                shape=tuple(s.shape[2:]),
                parameters=sum(learnt(module) for module in modules),
                macs=macs,
                passes=1 if name == "ssc" else steps,
                rate=float(s.double().mean()),
                unreachable=float((highest < 1.0).double().mean()),
            )
        )
    classes, width = student.fc.weight.shape
    rows.append(Described("readout", (classes,), width * classes + classes, width * classes, 1))
    return rows


def teacher_layers(teacher: Teacher) -> list[Described]:
    """Describe a teacher, all streams together. A layer has A_k, W_k, the temporal convolution, and
    its residual paths."""
    config = teacher.config
    networks = list(teacher.networks.values())
    streams, joints = len(networks), networks[0].typed_layers[0].graph.joints
    rows, inputs, frames = [], 3, config.frames
    for i, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True)):
        after = (frames - 1) // stride + 1
        layers = [net.typed_layers[i] for net in networks]
        macs = _graph_macs(layers[0].graph, frames) + _conv_macs(layers[0].conv, after, joints)
        for skip, at in ((layers[0].spatial_skip, frames), (layers[0].skip, after)):
            macs += _conv_macs(skip, at, joints) if isinstance(skip, ConvBN) else 0
        parameters = sum(p.numel() for layer in layers for p in layer.parameters())
        rows.append(Described(f"layer{i + 1}", (streams * width, after, joints), parameters, streams * macs, 1))
        inputs, frames = width, after
    rest = sum(p.numel() for p in teacher.parameters()) - sum(row.parameters for row in rows)
    rows.append(Described("readout", (len(config.classes),), rest, streams * inputs * len(config.classes), 1))
    return rows


def calibrate_batch_norms(student: Student, bodies: Tensor) -> None:
    """Set an untrained student's batch norm statistics and attention gains from `bodies`, as the
    first batch of training does."""
    # Any: momentum may be None, which torch 2.3's types do not allow.
    norms: list[Any] = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over the batch, not a running one
    with torch.no_grad():
        spikes: dict[str, Tensor] = {}
        student.train()(bodies, spikes)
        if student.smf.use_mutual_information:
            student.smf.information.copy_(student.smf.measure(spikes["ssc"].unflatten(2, (student.smf.streams, -1))))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    student.eval()


def _populations(student: Student) -> Iterator[tuple[str, list[nn.Module | nn.Parameter], int]]:
    """Yield name, modules, and MACs per body and pass of every population, in the student's
    order."""
    config, joints = student.config, student.config.joints
    frames = config.frames
    yield "ssc", [student.ssc], _conv_macs(student.ssc, frames, joints)
    # the streams are weighted before the convolution: 4 · C0 products, then the convolution of one
    # stream
    weighting = len(config.streams) * config.stream_channels * frames * joints
    yield "smf", [student.smf], weighting + _conv_macs(student.smf.current, frames, joints)
    for i, (sgc, stc) in enumerate(student.blocks):
        name, width, after = f"block{i + 1}", config.widths[i], config.block_frames[i]
        macs = _graph_macs(sgc.graph, frames) + _conv_macs(sgc.skip, frames, joints)
        yield f"{name}_sgc", [sgc.graph, sgc.skip], macs
        for suffix, (branch, _) in sgc.attended.items():
            yield f"{name}_{suffix}", [branch], _conv_macs(branch, frames, joints)
        if isinstance(sgc.attention, SpikingSelfAttention):
            for product in "mz":
                gain = getattr(sgc.attention, f"log_gain_{product}")
                yield f"{name}_attention.{product}", [gain], width * frames * joints**2
        elif sgc.attention is not None:
            for part in "mz":  # sums and gates multiply nothing
                yield f"{name}_attention_{part}", [], 0
        if sgc.attention is not None:
            macs = _conv_macs(sgc.proj, frames, joints) + _conv_macs(sgc.proj_skip, frames, joints)
            yield f"{name}_proj", [sgc.proj, sgc.proj_skip], macs
        macs = _conv_macs(stc.conv, after, joints) + _conv_macs(stc.skip, after, joints)
        yield f"{name}_stc", [stc.conv, stc.skip], macs
        frames = after


def learnt(owned: nn.Module | nn.Parameter) -> int:
    """Count trainable numbers, without frozen ones and an adjacency's entries outside its mask."""
    if isinstance(owned, nn.Parameter):
        return owned.numel()
    masked = sum(int((m.mask == 0).sum()) for m in owned.modules() if isinstance(m, GraphConvBN))
    return sum(p.numel() for p in owned.parameters() if p.requires_grad) - masked


def _conv_macs(layer: ConvBN | SSC, frames: int, joints: int) -> int:
    """Count one product per output and kernel entry."""
    return layer.conv.weight.numel() * frames * joints


def _graph_macs(layer: GraphConvBN, frames: int) -> int:
    """Count X A_k for all K subsets, dense, and the products with W_k."""
    spread = layer.weight.shape[1] * frames * layer.joints * layer.subsets * layer.joints
    return spread + layer.weight.numel() * frames * layer.joints


@torch.no_grad()
def largest_membrane(student: Student, name: str) -> Tensor:
    """Bound each neuron's membrane potential from above, by assuming that exactly its excitatory
    inputs spike at every step.

    The branches into a membrane are maximised separately. A neuron whose bound is below the
    threshold 1 can't fire.
    """
    current, config = _largest_current(student, name), student.config
    # a positive constant current gives the highest membrane potential after the last step, a
    # negative one after the first
    return torch.maximum(current * (1.0 - (1.0 - 1.0 / config.tau) ** config.steps), current / config.tau)


def _largest_current(student: Student, name: str) -> Tensor:
    config = student.config
    frames, joints = config.frames, config.joints
    if name == "ssc":
        gain, shift = folded_norm(student.ssc.bn)
        weight = (student.ssc.conv.weight.double() * gain.view(-1, 1, 1, 1)).abs()
        analog = torch.full(
            (1, 3 * len(config.streams), frames, joints), INTEGER_LIMIT * 2.0**LATTICE_EXPONENT
        ).double()
        current = F.conv2d(analog, weight, padding=1, groups=len(config.streams)) + shift.view(-1, 1, 1)
        return current[0]
    if name == "smf":
        share = (len(config.streams) * student.smf.weights(student.smf.information)).double().sum()
        return _excited(student.smf.current, frames, joints, scale=float(share))
    block, _, kind = name.partition("_")
    i = int(block.removeprefix("block")) - 1
    sgc, stc = student.blocks[i]
    frames = (config.frames, *config.block_frames)[i]
    if kind == "stc":
        current = _excited(stc.conv, frames, joints) + _excited(stc.skip, frames, joints)
    elif kind == "sgc":
        current = _excited_graph(sgc.graph, frames) + _excited(sgc.skip, frames, joints)
    elif kind in sgc.attended:
        current = _excited(sgc.attended[kind][0], frames, joints)
    elif kind == "proj":
        current = _excited(sgc.proj, frames, joints) + _excited(sgc.proj_skip, frames, joints)
    elif isinstance(sgc.attention, SpikingTokenAttention):  # for m all channels of a head spike, for z both inputs
        width = config.widths[i]
        most = sgc.attention.weight(width) * width / config.heads if kind[-1] == "m" else 2.0
        channels = config.heads if kind[-1] == "m" else width
        current = torch.full((channels, frames, joints), most, dtype=torch.float64)
    else:
        product = kind[-1]  # for attention.m, coincidences over d channels; for attention.z, over V keys
        gain = getattr(sgc.attention, f"log_gain_{product}").exp().double()
        most = config.widths[i] // config.heads if product == "m" else joints
        current = gain.view(-1, 1, 1, 1) * most
    return current


def _excited(layer: ConvBN, frames: int, joints: int, scale: float = 1.0) -> Tensor:
    """Compute the largest current (C, T', V) of BN(Conv(x)) over binary x: every positive synapse
    active, no negative one."""
    gain, shift = folded_norm(layer.bn)
    weight = (layer.conv.weight.double() * gain.view(-1, 1, 1, 1) * scale).clamp_min(0)
    ones = torch.ones(1, weight.shape[1], frames, joints, dtype=torch.float64)
    return F.conv2d(ones, weight, stride=layer.conv.stride, padding=layer.conv.padding)[0] + shift.view(-1, 1, 1)


def _excited_graph(layer: GraphConvBN, frames: int) -> Tensor:
    """Compute `_excited` of a graph convolution, whose synaptic weight is the sum over the
    subsets."""
    gain, shift = folded_norm(layer.bn)
    weight = layer.weight[..., 0].double() * gain.view(-1, 1, 1)  # (O, I, K)
    adjacency = layer.masked_adjacency().double()  # (K, source, target)
    by_target = [
        torch.einsum("oik,ks->ois", weight, adjacency[:, :, target]).clamp_min(0).sum((1, 2))
        for target in range(layer.joints)
    ]
    current = torch.stack(by_target, dim=1) + shift[:, None]  # (O, V)
    return current[:, None].expand(-1, frames, -1)


def unable(rows: list[Described]) -> list[str]:
    """Write a line for each population that cannot reach its threshold or hardly fires."""
    lines = []
    for row in rows:
        if row.rate is None or row.unreachable is None:
            continue
        if row.unreachable == 1.0:
            lines.append(f"{row.name}: none of its {prod(row.shape)} neurons can reach the threshold")
        elif row.rate < SILENT_RATE:
            lines.append(f"{row.name}: fires at {row.rate:.4%}, under {SILENT_RATE:.2%}")
    return lines
