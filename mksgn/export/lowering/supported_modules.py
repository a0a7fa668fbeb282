"""The modules that a student may consist of, and what each of them becomes.

The table in docs/export.md is generated from `SUPPORTED`.
"""

from dataclasses import dataclass

import nir
import torch
from torch import nn

from mksgn.export.errors import (
    CannotFireError,
    NonFiniteWeightsError,
    SoftResetError,
    TrainingModeError,
    UnsupportedModuleError,
)
from mksgn.export.graph.nodes import GraphConv
from mksgn.export.graph.nodes import SpikingSelfAttention as NirAttention
from mksgn.train.describe import largest_membrane
from mksgn.train.layers import SASGC, SMF, SSC, STC, ConvBN, GraphConvBN, SpikingSelfAttention, SpikingTokenAttention
from mksgn.train.neurons import LIF
from mksgn.train.student import Student

Nodes = tuple[type[nir.NIRNode], ...]


@dataclass(frozen=True)
class Support:
    """What one module becomes, apart from the modules inside it.

    `portable` is None for a module without an encoding in that profile.
    """

    module: type[nn.Module]
    becomes: str
    structured: Nodes = ()
    portable: Nodes | None = ()
    onnx: tuple[str, ...] = ()


FIRE = ("Split", "Mul", "Sub", "Add", "Greater", "Where", "Concat", "Cast")
SUPPORTED = (
    Support(
        Student,
        "the graph; in ONNX unrolled over S steps, with what precedes the first spikes computed once",
        (nir.Input, nir.Output),
        (nir.Input, nir.Output),
    ),
    Support(
        SSC, "a block-diagonal convolution of its groups, batch norm folded", (nir.Conv2d,), (nir.Conv2d,), ("Conv",)
    ),
    Support(SMF, "its stream weights are folded into one convolution over all streams"),
    Support(SASGC, "edges: both branches of each sum lead to one population"),
    Support(
        GraphConvBN,
        "a graph convolution, adjacency masked, batch norm folded",
        (GraphConv,),
        (nir.Linear, nir.Conv2d),
        ("Gather", "Reshape", "Transpose", "MatMul", "Concat", "Add", "Conv"),
    ),
    Support(
        SpikingSelfAttention,
        "two populations and two products, the gains folded into the thresholds",
        (NirAttention,),
        (nir.LIF, nir.Conv2d, nir.Linear),
        ("Reshape", "Transpose", "MatMul", *FIRE),
    ),
    Support(
        SpikingTokenAttention,
        "two populations: m after a convolution that sums q's channels, z that gets m's and k's spikes (quantised: k's through a Scale)",
        (nir.LIF, nir.Conv2d, nir.Scale),
        (nir.LIF, nir.Conv2d, nir.Linear),
        ("MatMul", *FIRE),
    ),
    Support(STC, "edges: both branches lead to one population"),
    Support(
        ConvBN,
        "a convolution, batch norm folded; if strided and higher than 1, with a decimating pool, which nir can type",
        (nir.Conv2d, nir.SumPool2d),
        (nir.Conv2d,),
        ("Conv", "Add"),
    ),
    Support(nn.Conv2d, "part of the module that contains it"),
    Support(nn.BatchNorm2d, "weights and bias of the linear map before it"),
    Support(
        LIF,
        "a population, its threshold lowered to the next float32, since NIR fires at > and not at >=",
        (nir.LIF,),
        (nir.LIF,),
        FIRE,
    ),
    Support(
        nn.Linear,
        "the read-out: a sum over frames and joints, the weights divided by their number",
        (nir.SumPool2d, nir.Flatten, nir.Affine),
        (nir.SumPool2d, nir.Flatten, nir.Affine),
        ("ReduceSum", "Reshape", "MatMul", "Add", "ReduceMean"),
    ),
    Support(nn.ModuleList, "nothing"),
)


def markdown() -> str:
    """Format the table of docs/export.md."""
    lines = ["| module | becomes | structured | portable | ONNX |", "|---|---|---|---|---|"]
    for row in SUPPORTED:
        home = row.module.__module__
        home = "torch.nn" if home.startswith("torch.") else home.removeprefix("mksgn.")
        cells = [
            f"`{home}.{row.module.__name__}`",
            row.becomes,
            _names(row.structured),
            "refused by name" if row.portable is None else _names(row.portable),
            ", ".join(row.onnx) or "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _names(nodes: Nodes) -> str:
    return ", ".join(node.__name__ for node in nodes) or "–"


def check_student(student: Student) -> None:
    """Check that a student can be exported.

    Raises:
        ExportError: A module, named by its path in the model, or a weight cannot be exported; the
            subclass gives the reason.
    """
    known = {row.module for row in SUPPORTED}
    for path, module in student.named_modules():
        if type(module) not in known:
            _refuse(path, module)
        if isinstance(module, nn.BatchNorm2d) and (module.training or module.running_mean is None):
            why = "is in training mode" if module.training else "keeps no running statistics"
            raise TrainingModeError(
                f"{path}: batch norm {why}, so it has no constants to fold; "
                "call model.eval(), and train with track_running_stats"
            )
        if isinstance(module, GraphConvBN) and not module.masked_adjacency().any():
            raise UnsupportedModuleError(
                f"{path}: every entry of its adjacency is 0, so no signal passes; train the model again"
            )
        if isinstance(module, LIF) and module.tau != student.config.tau:
            raise UnsupportedModuleError(
                f"{path}: tau {module.tau} differs from the student's {student.config.tau}; "
                "give all populations the same time constant"
            )
    for name, value in student.state_dict().items():
        bad = int((~torch.isfinite(value)).sum()) if value.is_floating_point() else 0
        if bad:
            raise NonFiniteWeightsError(
                f"{name}: {bad} of {value.numel()} weights are not finite; train the model again"
            )
    for name, neuron in student.neurons().items():
        threshold, highest = neuron.threshold, largest_membrane(student, name)
        if bool((highest < threshold).all()):
            raise CannotFireError(
                f"{name}: the membrane potential reaches at most {float(highest.max()):.4g}, its threshold is "
                f"{float(threshold.min()):.4g}; train longer, with a smaller rate_weight, or with a rate_floor"
            )


def _refuse(path: str, module: nn.Module) -> None:
    kind = f"{type(module).__module__.partition('.')[0]}'s {type(module).__name__}"
    subtracts = getattr(module, "v_reset", 0.0) is None or getattr(module, "reset_mechanism", "") == "subtract"
    if subtracts:
        raise SoftResetError(
            f"{path}: {kind} subtracts its threshold when it fires, NIR's LIF resets to v_reset; "
            "train with mksgn's LIF, which resets to 0"
        )
    raise UnsupportedModuleError(
        f"{path}: {kind} has no encoding here; build the student from the modules that docs/export.md lists"
    )
