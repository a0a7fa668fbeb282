"""MK-SGN's student: SSC → SMF → blocks of [SA-SGC → STC] → mean pooling → FC  [review]."""

from __future__ import annotations

from typing import Any, Literal, Protocol, cast

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mksgn.common.validation import NO_OTHER_ENTRIES, Real, plain, raising_bad_input
from mksgn.train.fields import (
    MOST_DECISIONS,
    ClassNames,
    Frames,
    GraphName,
    Kernel,
    Steps,
    Streams,
    Width,
    Widths,
    check_weights,
)
from mksgn.train.layers import SASGC, SMF, SSC, STC, Attention, init_bn_biases
from mksgn.train.neurons import LIF
from mksgn.train.skeletons import adjacency_subsets, graph
from mksgn.train.streams import STREAMS

MOST_TOKEN_STEPS = 8  # up to which a gate with 8-bit weights tells one spike at every step from two at one step


@raising_bad_input("student config")
@dataclass(frozen=True, config=NO_OTHER_ENTRIES)
class StudentConfig:
    """Everything that fixes the student's shape. Six blocks [review]; widths [ours]; S = 4 [paper],
    tau = 2 [sibling]."""

    graph: GraphName
    classes: ClassNames
    frames: Frames = 16
    stream_channels: Width = 64
    widths: Widths = (64, 64, 128, 128, 256, 256)
    heads: Width = 8
    kernel: Kernel = 5
    steps: Steps = 4
    tau: Real = Field(default=2.0, ge=1, le=1e6)
    attention: Attention = "self"
    adjacency: Literal["skeleton", "learned"] = "skeleton"
    fusion: Literal["information", "mean"] = "information"
    streams: Streams = STREAMS

    @model_validator(mode="after")
    def _check_heads(self) -> StudentConfig:
        for width in self.widths:
            if self.attention != "none" and width % self.heads:
                raise ValueError(f"width {width} is not a multiple of heads {self.heads}; change one of them")
        return self

    @model_validator(mode="after")
    def _check_token(self) -> StudentConfig:
        if self.attention == "token" and (self.tau != 2 or self.steps > MOST_TOKEN_STEPS):
            raise ValueError(
                f"attention token: its neurons are gates only at tau 2 and at most {MOST_TOKEN_STEPS} steps (now "
                f"tau {self.tau:g} and {self.steps} steps); change these, or use attention self"
            )
        return self

    @model_validator(mode="after")
    def _check_size(self) -> StudentConfig:
        before = (self.widths[0], *self.widths[:-1])
        # in each block: the graph convolution's three subsets, query, key, value and projection, and the kernel
        check_weights(sum(w * (4 * b + 4 * w + self.kernel * w) for b, w in zip(before, self.widths, strict=True)))
        channels = max(*self.widths, len(self.streams) * self.stream_channels)
        decisions = self.steps * channels * self.frames * self.joints
        if decisions > MOST_DECISIONS:
            raise ValueError(
                f"{decisions:,} decisions of a layer for one body, the limit is {MOST_DECISIONS:,}; use fewer steps, "
                "frames or channels"
            )
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride 2 where the width doubles, the pattern of CTR-GCN's baseline [ours]."""
        previous = (self.widths[0], *self.widths[:-1])
        return tuple(2 if width == 2 * before else 1 for before, width in zip(previous, self.widths, strict=True))

    @property
    def joints(self) -> int:
        return len(graph(self.graph).joints)

    @property
    def block_frames(self) -> tuple[int, ...]:
        """Frames in each block's output."""
        frames, out = self.frames, []
        for stride in self.strides:
            frames = (frames - 1) // stride + 1
            out.append(frames)
        return tuple(out)

    def to_dict(self) -> dict[str, Any]:
        return plain(self)


class Student(nn.Module):
    """The network: bodies (L, 3 · streams, T, V) on the streams' lattice → logits (L, classes)."""

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.config = config
        skeleton = graph(config.graph)
        adjacency = torch.from_numpy(adjacency_subsets(skeleton))
        self.ssc = SSC(len(config.streams), config.stream_channels, config.steps, config.tau)
        self.smf = SMF(
            len(config.streams),
            config.stream_channels,
            config.widths[0],
            config.tau,
            use_mutual_information=config.fusion == "information",
        )
        self.sgc, self.stc = nn.ModuleList(), nn.ModuleList()
        inputs = config.widths[0]
        for i, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True), start=1):
            self.sgc.append(
                SASGC(
                    f"block{i}",
                    inputs,
                    width,
                    adjacency,
                    heads=config.heads,
                    tau=config.tau,
                    attention=config.attention,
                    learned=config.adjacency == "learned",
                )
            )
            self.stc.append(STC(f"block{i}", inputs, width, kernel=config.kernel, stride=stride, tau=config.tau))
            inputs = width
        self.fc = nn.Linear(inputs, len(config.classes))
        init_bn_biases(self)

    def forward(self, x: Tensor, spikes: Spikes | None = None) -> Tensor:
        """Compute logits from the mean over steps, frames and joints [sibling]; `spikes` receives
        (S, L, *shape) per population."""
        record = spikes.__setitem__ if spikes is not None else _forget
        y = self.smf(self.ssc(x, record), record)
        for sgc, stc in zip(self.sgc, self.stc, strict=True):
            y = stc(sgc(y, record), y, record)
        return self.fc(y.mean((0, 3, 4)))

    @property
    def blocks(self) -> list[tuple[SASGC, STC]]:
        """The two layers of every block, with the types that a ModuleList does not keep."""
        return cast("list[tuple[SASGC, STC]]", list(zip(self.sgc, self.stc, strict=True)))

    def neurons(self) -> dict[str, LIF]:
        """Return the neurons of each population, by the name under which its spikes are recorded."""
        neurons = {"ssc": self.ssc.sn, "smf": self.smf.sn}
        for sgc, stc in self.blocks:
            neurons[f"{sgc.name}_sgc"] = sgc.sn
            if sgc.attention is not None:
                neurons |= {f"{sgc.name}_{suffix}": neuron for suffix, (_, neuron) in sgc.attended.items()}
                neurons |= sgc.attention.neurons(f"{sgc.name}_attention")
                neurons[f"{sgc.name}_proj"] = sgc.proj_sn
            neurons[f"{stc.name}_stc"] = stc.sn
        return neurons

    def use_rates(self, active: bool) -> None:
        """Train without time steps: each population passes on its mean firing rate under a constant current.

        A rate has at most S + 1 values, those of S steps of the same neuron; the products are computed once instead of
        at every step. The weights are those of the spiking network.
        """
        for neuron in self.neurons().values():
            neuron.rate_steps = self.config.steps if active else 0


class Spikes(Protocol):
    """Receives spikes by population: a dict that keeps them, or a counter."""

    def __setitem__(self, name: str, spikes: Tensor, /) -> None: ...


class SpikeCount:
    """Counts the spikes that it receives, and keeps none."""

    def __init__(self) -> None:
        self.spikes, self.decisions = 0.0, 0

    def __setitem__(self, name: str, spikes: Tensor, /) -> None:
        self.spikes += float(spikes.sum(dtype=torch.float64))
        self.decisions += spikes.numel()


def _forget(name: str, spikes: Tensor) -> None:
    """Drop spikes that are not recorded."""


def body_mean(logits: Tensor, clip_of_body: Tensor, clips: int) -> Tensor:
    """Average logits (L, classes) over each clip's bodies, (clips, classes) [sibling]."""
    total = logits.new_zeros(clips, logits.shape[1]).index_add_(0, clip_of_body, logits)
    count = logits.new_zeros(clips).index_add_(0, clip_of_body, torch.ones_like(logits[:, 0]))
    return total / count[:, None]
