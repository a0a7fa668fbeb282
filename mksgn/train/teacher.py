"""The multimodal GCN teacher: ten graph-convolutional layers [review], one network per stream,
without spikes.

    per layer    Y = ReLU( BN(sum_k A_kᵀ X W_k) + R(X) )
                 out = ReLU( BN(Conv(k x 1, stride s)(Y)) + R_s(X) )
    logits       FC of the mean over frames and joints; the soft label is the mean of the streams' logits

R is the identity where the shape allows it, else BN(Conv1x1); the first layer has none. Widths 64 ×
4, 128 × 3, 256 × 3 with stride 2 at each widening, as in ST-GCN's and CTR-GCN's baselines [ours].
The adjacency is free in all entries [sibling].
"""

from typing import Annotated, Any, cast

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mksgn.common.validation import NO_OTHER_ENTRIES, plain, raising_bad_input
from mksgn.train.fields import ClassNames, Frames, GraphName, Kernel, Streams, Width, check_weights
from mksgn.train.layers import ConvBN, GraphConvBN
from mksgn.train.skeletons import adjacency_subsets, graph
from mksgn.train.streams import STREAMS

LAYERS = 10  # [review]


@raising_bad_input("teacher config")
@dataclass(frozen=True, config=NO_OTHER_ENTRIES)
class TeacherConfig:
    """Everything that fixes the teacher's shape."""

    graph: GraphName
    classes: ClassNames
    frames: Frames = 64
    widths: Annotated[tuple[Width, ...], Field(min_length=LAYERS, max_length=LAYERS)] = (
        (64,) * 4 + (128,) * 3 + (256,) * 3
    )
    kernel: Kernel = 9
    streams: Streams = STREAMS

    @model_validator(mode="after")
    def _check_size(self) -> "TeacherConfig":
        of_stream = sum(width * (4 * width + self.kernel * width) for width in self.widths)
        check_weights(len(self.streams) * of_stream)
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride 2 where the width grows."""
        previous = (self.widths[0], *self.widths[:-1])
        return tuple(2 if width > before else 1 for before, width in zip(previous, self.widths, strict=True))

    def to_dict(self) -> dict[str, Any]:
        return plain(self)


class GCNLayer(nn.Module):
    """One layer of the equations above. Input (L, C, T, V), output (L, C', floor((T - 1) / stride)
    + 1, V)."""

    def __init__(self, inputs: int, outputs: int, adjacency: Tensor, *, kernel: int, stride: int, residual: bool):
        super().__init__()
        self.graph = GraphConvBN(inputs, outputs, adjacency, learned=True)
        self.conv = ConvBN(outputs, outputs, (kernel, 1), stride)

        def skip(step: int) -> nn.Module | None:
            if not residual:
                return None
            return nn.Identity() if inputs == outputs and step == 1 else ConvBN(inputs, outputs, stride=step)

        self.spatial_skip, self.skip = skip(1), skip(stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.graph(x)
        y = torch.relu(y if self.spatial_skip is None else y + self.spatial_skip(x))
        y = self.conv(y)
        return torch.relu(y if self.skip is None else y + self.skip(x))


class GCN(nn.Module):
    """One stream's network: (L, 3, T, V) → logits (L, classes). A batch norm per joint and
    coordinate comes first [sibling]."""

    def __init__(self, config: TeacherConfig):
        super().__init__()
        skeleton = graph(config.graph)
        adjacency = torch.from_numpy(adjacency_subsets(skeleton))
        self.input_bn = nn.BatchNorm1d(3 * skeleton.size)
        self.layers = nn.ModuleList()
        inputs = 3
        for i, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True)):
            self.layers.append(GCNLayer(inputs, width, adjacency, kernel=config.kernel, stride=stride, residual=i > 0))
            inputs = width
        self.fc = nn.Linear(inputs, len(config.classes))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute logits, and the features (L, C, T, V) of every layer."""
        bodies, _, frames, joints = x.shape
        flat = self.input_bn(x.transpose(2, 3).reshape(bodies, -1, frames))
        x = flat.view(bodies, 3, joints, frames).transpose(2, 3)
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.fc(x.mean((2, 3))), features

    @property
    def typed_layers(self) -> list[GCNLayer]:
        """The layers, with the type that a ModuleList does not keep."""
        return cast(list[GCNLayer], list(self.layers))


class Teacher(nn.Module):
    """Input (L, 3 · streams, T, V), as the student's; output logits (L, classes), the mean over the
    streams."""

    def __init__(self, config: TeacherConfig):
        super().__init__()
        self.config = config
        self.by_stream = nn.ModuleDict({name: GCN(config) for name in config.streams})

    @property
    def networks(self) -> dict[str, GCN]:
        """The network of each stream, with the type that a ModuleDict does not keep."""
        return cast(dict[str, GCN], dict(self.by_stream.items()))

    def forward(self, x: Tensor) -> Tensor:
        return self.look(x)[0].mean(0)

    def look(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute each stream's logits (streams, L, classes), and each layer's features
        concatenated, (L, streams · C, T, V)."""
        logits, features = zip(
            *(net(part) for net, part in zip(self.by_stream.values(), x.split(3, dim=1), strict=True)), strict=True
        )
        return torch.stack(logits), [torch.cat(layer, dim=1) for layer in zip(*features, strict=True)]
