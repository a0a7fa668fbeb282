"""What a student may be made of, module by module, and what each becomes: the check before a model is lowered.

The table in docs/export.md is written from `SUPPORTED`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mksgn.export.errors import (
    CannotFireError,
    NonFiniteWeightsError,
    SoftResetError,
    TrainingModeError,
    UnsupportedModuleError,
)
from mksgn.train.describe import largest_membrane
from mksgn.train.layers import SASGC, SMF, SSC, STC, ConvBN, GraphConvBN, SpikingSelfAttention
from mksgn.train.neurons import LIF
from mksgn.train.student import Student


@dataclass(frozen=True)
class Support:
    """`structured`, `portable` and `onnx` name the nodes that stand for a module; None where it has no encoding there."""

    module: type[nn.Module]
    structured: str
    portable: str | None
    onnx: str
    folded: str = ""


SUPPORTED = (
    Support(SSC, "Conv2d, LIF", "Conv2d, LIF", "Conv, LIF", "four groups → one block-diagonal Conv2d; batch norm"),
    Support(SMF, "Conv2d, LIF", "Conv2d, LIF", "Conv, LIF", "stream weights into one Conv2d over all streams; batch norm"),
    Support(
        SASGC,
        "GraphConv, Conv2d, LIF, SpikingSelfAttention",
        "with attention: none",
        "MatMul, Conv, LIF",
        "both branches of each sum are edges into its LIF",
    ),
    Support(GraphConvBN, "GraphConv", "Linear → Conv2d → Linear per joint", "MatMul, Conv", "batch norm; adjacency masked"),
    Support(SpikingSelfAttention, "SpikingSelfAttention", None, "MatMul, LIF", "gain per head into the thresholds"),
    Support(STC, "Conv2d, SumPool2d (stride), LIF", "Conv2d, LIF", "Conv, LIF", "both branches are edges into its LIF"),
    Support(ConvBN, "Conv2d", "Conv2d", "Conv", "batch norm"),
    Support(nn.Conv2d, "Conv2d", "Conv2d", "Conv"),
    Support(nn.BatchNorm2d, "–", "–", "–", "into the weights and bias before it"),
    Support(LIF, "LIF", "LIF", "Mul, Add, Sub, Greater, Where per step"),
    Support(nn.Linear, "SumPool2d, Flatten, Affine", "SumPool2d, Flatten, Affine", "ReduceSum, Gemm", "mean over frames and joints"),
    Support(nn.ModuleList, "–", "–", "–"),
    Support(Student, "NIRGraph", "NIRGraph", "graph unrolled over S steps"),
)


def check_student(student: Student) -> None:
    """Raises the ExportError that names the first module, by its path in the model, that cannot be exported as it is."""
    known = {row.module for row in SUPPORTED}
    for path, module in student.named_modules():
        if type(module) not in known:
            _refuse(path, module)
        if isinstance(module, nn.BatchNorm2d) and (module.training or module.running_mean is None):
            why = "is in training mode" if module.training else "keeps no running statistics"
            raise TrainingModeError(
                f"{path}: batch norm {why}, so it has no constants to fold; call model.eval(), and train with track_running_stats"
            )
        if isinstance(module, LIF) and module.tau != student.config.tau:
            raise UnsupportedModuleError(
                f"{path}: tau {module.tau} differs from the student's {student.config.tau}; give all populations one time constant"
            )
    for name, value in student.state_dict().items():
        bad = int((~torch.isfinite(value)).sum()) if value.is_floating_point() else 0
        if bad:
            raise NonFiniteWeightsError(f"{name}: {bad} of {value.numel()} weights are not finite; train the model again")
    neurons = student.neurons()
    for name in [*neurons, *(f"{sgc.name}_attention.{p}" for sgc in student.sgc if sgc.attention for p in "mz")]:
        threshold = neurons[name].threshold if name in neurons else torch.ones(())
        highest = largest_membrane(student, name)
        if bool((highest < threshold).all()):
            raise CannotFireError(
                f"{name}: membrane reaches at most {float(highest.max()):.4g} of its threshold {float(threshold.min()):.4g}, whatever its "
                "inputs do; train it longer, with a smaller rate_weight, or with a rate_floor"
            )


def _refuse(path: str, module: nn.Module) -> None:
    kind = f"{type(module).__module__.partition('.')[0]}'s {type(module).__name__}"
    subtracts = getattr(module, "v_reset", 0.0) is None or getattr(module, "reset_mechanism", "") == "subtract"
    if subtracts:
        raise SoftResetError(
            f"{path}: {kind} subtracts its threshold when it fires; NIR's LIF sets the membrane to v_reset: train with mksgn's LIF, which "
            "resets to 0"
        )
    raise UnsupportedModuleError(
        f"{path}: {kind} has no encoding here; docs/export.md lists what has: build the student of those modules"
    )
