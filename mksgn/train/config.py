"""What to train and how: presets by name, or a YAML file with the same entries."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from mksgn.common.checks import number
from mksgn.common.errors import BadInputError

# `paper` has the widths of CTR-GCN's baseline [ours]; the smaller ones are for tests, demos and CPUs. A rate_weight of 0.3 took two
# thirds of the demo's spikes and none of its accuracy (docs/training.md).
PRESETS: dict[str, dict[str, Any]] = {
    # The synthetic clips vary in size, speed, phase and view by themselves: hardly any augmentation, few epochs.
    "demo": {
        "student": {"frames": 8, "stream_channels": 8, "widths": [8, 16, 16, 32, 32, 32], "heads": 2},
        "teacher": {"frames": 8, "widths": [16] * 4 + [32] * 3 + [64] * 3, "kernel": 5},
        "epochs": 10,
        "batch": 24,
        "learning_rate": 1e-2,
        "label_smoothing": 0.05,
        "rate_weight": 0.3,
        "rate_floor": 0.05,
        "rotate_degrees": 0.0,
        "scale": (0.95, 1.05),
        "crop": 0.95,
    },
    "small": {
        "student": {"frames": 16, "stream_channels": 16, "widths": [16, 32, 64, 64, 128, 128], "heads": 4},
        "teacher": {"frames": 16, "widths": [32] * 4 + [64] * 3 + [128] * 3, "kernel": 5},
        "epochs": 60,
        "batch": 16,
        "learning_rate": 6e-3,
        "rate_weight": 0.3,
        "rotate_degrees": 60.0,
    },
    "paper": {
        "student": {"frames": 64, "stream_channels": 64, "widths": [64, 64, 128, 128, 256, 256], "heads": 8},
        "teacher": {"frames": 64, "widths": [64] * 4 + [128] * 3 + [256] * 3, "kernel": 9},
        "epochs": 65,
        "batch": 64,
        "learning_rate": 2e-3,
        "rate_weight": 0.3,
    },
}


@dataclass(frozen=True)
class TrainConfig:
    """`student` and `teacher` override entries of StudentConfig and TeacherConfig; graph and classes come from the data.

    The kin train by SGD, Nesterov 0.9, rate 0.1 at batch 128, decay 1e-4 [kin]: `optimizer: sgd, learning_rate: 0.1,
    weight_decay: 1e-4, batch: 128`. The presets use AdamW, which needs fewer epochs here [ours].
    """

    preset: str = "custom"
    student: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    epochs: int = 40
    batch: int = 32
    optimizer: str = "adamw"  # or sgd: Nesterov, momentum 0.9 [kin]
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    schedule: str = "cosine"  # or step: divided by 10 at each of `milestones`
    milestones: tuple[float, ...] = (0.6, 0.85)  # shares of the training
    warmup: float = 0.1  # share of the steps in which the learning rate rises
    clip_gradient: float = 3.0  # [kin]
    precision: str = "float32"  # or mixed: bfloat16 convolutions, float32 membranes and weights
    label_smoothing: float = 0.1
    soft_label_weight: float = 1.0  # alpha, with a teacher only
    feature_weight: float = 1.0  # beta, with a teacher only
    temperature: float = 4.0  # of the soft labels
    rate_weight: float = 0.0  # lambda: what a mean firing rate of 1 adds to the loss
    rate_floor: float = 0.0  # populations that fire less than this are not pressed further
    rotate_degrees: float = 30.0  # about the vertical axis; a third of it about x (the kin turn by 60 about both)
    scale: tuple[float, float] = (0.8, 1.25)
    crop: float = 0.7  # least share of a clip that a training window covers

    def __post_init__(self) -> None:
        for name in ("student", "teacher"):
            if not isinstance(getattr(self, name), dict):
                raise BadInputError(
                    f"config: {name} is {getattr(self, name)!r}; it must be a mapping such as {{frames: 16}}"
                )
        for name, allowed in [
            ("optimizer", ("adamw", "sgd")),
            ("schedule", ("cosine", "step")),
            ("precision", ("float32", "mixed")),
        ]:
            if getattr(self, name) not in allowed:
                raise BadInputError(f"config: {name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        checked: dict[str, Any] = {
            name: number(f"config: {name}", getattr(self, name), 1, whole=True) for name in ("epochs", "batch")
        }
        checked["learning_rate"] = number("config: learning_rate", self.learning_rate, 1e-9, 10)
        for name, high in [
            ("weight_decay", 10),
            ("warmup", 1),
            ("label_smoothing", 0.99),
            ("rotate_degrees", 180),
            ("crop", 1),
            ("soft_label_weight", 1e6),
            ("feature_weight", 1e6),
            ("rate_weight", 1e6),
            ("rate_floor", 1),
        ]:
            checked[name] = number(f"config: {name}", getattr(self, name), 0, high)
        checked["clip_gradient"] = number("config: clip_gradient", self.clip_gradient, 1e-6)
        checked["temperature"] = number("config: temperature", self.temperature, 1e-3, 1e3)
        if not isinstance(self.milestones, list | tuple):
            raise BadInputError(
                f"config: milestones is {self.milestones!r}; it must be a list of shares, such as [0.6]"
            )
        checked["milestones"] = tuple(number("config: milestones", share, 0, 1) for share in self.milestones)
        if not isinstance(self.scale, list | tuple) or len(self.scale) != 2:
            raise BadInputError(
                f"config: scale is {self.scale!r}; it must be two numbers, the least and the largest factor"
            )
        checked["scale"] = tuple(number("config: scale", value, 0.01, 100) for value in self.scale)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "scale": list(self.scale), "milestones": list(self.milestones)}


def load(name: str, *, epochs: int | None = None, changes: Sequence[str] = ()) -> TrainConfig:
    """A preset's name, or the path of a YAML file, and `changes` to it such as "student.attention=none" or "batch=16".

    Raises BadInputError that names what is unknown.
    """
    if name in PRESETS:
        values = {"preset": name, **deepcopy(PRESETS[name])}
    else:
        path = Path(name)
        if not path.is_file():
            raise BadInputError(f"config {name}: neither a preset ({', '.join(PRESETS)}) nor a YAML file")
        try:
            values = yaml.safe_load(path.read_text()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInputError(f"config {name}: no valid YAML ({str(error).splitlines()[0]})") from error
        if not isinstance(values, dict):
            raise BadInputError(f"config {name}: expected a mapping of entries such as epochs: 40")
    for change in changes:
        _apply(values, change)
    unknown = {str(key) for key in values} - {f.name for f in fields(TrainConfig)}
    if unknown:
        raise BadInputError(f"config {name}: unknown entries {', '.join(sorted(unknown))}")
    config = TrainConfig(**values)
    return replace(config, epochs=epochs) if epochs is not None else config


def _apply(values: dict[str, Any], change: str) -> None:
    """One "key=value" or "student.key=value"; the value is YAML, so that numbers, lists and words are what they look like."""
    key, equals, text = change.partition("=")
    part, dot, entry = key.partition(".")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInputError(f"--set {change}: {text!r} is no valid YAML value") from error
    if not equals or (dot and part not in ("student", "teacher")) or key in ("student", "teacher", "preset"):
        raise BadInputError(f"--set {change}: expected KEY=VALUE, such as batch=16 or student.attention=none")
    if dot:
        given = values.get(part) or {}
        values[part] = {**given, entry: value} if isinstance(given, dict) else given  # refused with the rest
    else:
        values[key] = value
