"""Training configs: presets by name, or a YAML file with the same entries."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from mksgn.common import yaml_text
from mksgn.common.counts import MOST_BATCH, MOST_EPOCHS
from mksgn.common.errors import BadInputError
from mksgn.common.validation import NO_OTHER_ENTRIES, Integer, Real, plain, raising_bad_input
from mksgn.train.choices import BITS, PRESET_NAMES

_PRESET_FILES = Path(__file__).parent / "data" / "presets"
PRESETS: dict[str, dict[str, Any]] = {name: yaml_text.read(_PRESET_FILES / f"{name}.yaml") for name in PRESET_NAMES}

FINE_TUNING_EPOCHS = 5  # of a quantisation-aware training, which starts from a trained model

Share = Annotated[Real, Field(ge=0, le=1)]
Weight = Annotated[Real, Field(ge=0, le=1e6)]
Factor = Annotated[Real, Field(ge=0.01, le=100)]


@raising_bad_input("config")
@dataclass(frozen=True, config=NO_OTHER_ENTRIES)
class TrainConfig:
    """What to train and how.

    `student` and `teacher` override entries of StudentConfig and TeacherConfig; graph and classes
    come from the data.

    The authors' sibling models are trained by SGD with Nesterov momentum 0.9, learning rate 0.1 at
    batch size 128 and weight decay 1e-4 [sibling]: `optimizer: sgd, learning_rate: 0.1, weight_decay:
    1e-4, batch: 128`. The presets use AdamW, which needs fewer epochs here [ours].
    """

    preset: str = "custom"
    student: dict[str, Any] = Field(default_factory=dict)
    teacher: dict[str, Any] = Field(default_factory=dict)
    epochs: Integer = Field(default=40, ge=1, le=MOST_EPOCHS)
    batch: Integer = Field(default=32, ge=1, le=MOST_BATCH)
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: Nesterov, momentum 0.9 [sibling]
    learning_rate: Real = Field(default=4e-3, ge=1e-9, le=10)
    weight_decay: Real = Field(default=1e-2, ge=0, le=10)
    schedule: Literal["cosine", "step"] = "cosine"  # step: divided by 10 at each of `milestones`
    milestones: Annotated[tuple[Share, ...], Field(max_length=100)] = (0.6, 0.85)  # shares of the training
    warmup: Share = 0.1  # share of the steps in which the learning rate rises
    clip_gradient: Real = Field(default=3.0, ge=1e-6)  # [sibling]
    precision: Literal["float32", "mixed"] = "float32"  # mixed: bfloat16 convolutions, float32 membranes and weights
    label_smoothing: Real = Field(default=0.1, ge=0, le=0.99)
    soft_label_weight: Weight = 1.0  # alpha, with a teacher only
    feature_weight: Weight = 1.0  # beta, with a teacher only
    temperature: Real = Field(default=4.0, ge=1e-3, le=1e3)  # of the soft labels
    rate_weight: Weight = 0.0  # lambda: what a mean firing rate of 1 adds to the loss
    rate_floor: Share = 0.0  # populations that fire less than this are not penalised
    attention_floor: Share = 0.0  # firing rate below which attention's maps and values are pulled up (distill.py)
    rate_cost: Literal["neurons", "synapses"] = "neurons"  # what the mean firing rate is taken over (distill.py)
    rate_phase: Annotated[Real, Field(ge=0, le=0.95)] = 0.0  # share of epochs without time steps (Student.use_rates)
    rotate_degrees: Real = Field(default=30.0, ge=0, le=180)  # about the vertical axis
    tilt_degrees: Real | None = Field(default=None, ge=0, le=180)  # about x; default: a third of rotate_degrees
    mirror: Share = 0.0  # share of the clips whose left and right are exchanged
    frame_sampling: Literal["even", "random"] = "even"  # random: drawn with repetition and sorted [sibling]
    scale: tuple[Factor, Factor] = (0.8, 1.25)  # smallest and largest
    mix: Share = 0.0  # share of the clips that are mixed with another clip, labels included
    crop: Share = 0.7  # smallest share of a clip that a training window covers
    quantization_aware: Annotated[Integer, Field(ge=BITS[0], le=BITS[-1])] | None = (
        None  # bits per weight in the forward pass
    )

    @model_validator(mode="after")
    def _check_quantization(self) -> "TrainConfig":
        if self.quantization_aware is not None and self.rate_phase:
            raise ValueError(
                f"quantization_aware trains on spikes from the start; set rate_phase=0 (now {self.rate_phase})"
            )
        if self.quantization_aware is not None and self.precision != "float32":
            raise ValueError("quantization_aware computes exact integers; set precision=float32")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain containers, as in JSON and model.pt."""
        return plain(self)


def load(name: str, *, epochs: int | None = None, changes: Sequence[str] = ()) -> TrainConfig:
    """Load a preset or a YAML file.

    Args:
        name: The preset's name or the file's path.
        epochs: Replaces the entry `epochs`.
        changes: Changes such as "student.attention=none" or "batch=16".

    Raises:
        BadInputError: An unknown name or entry, or a value out of range.
    """
    if name in PRESETS:
        return _with_changes(name, {"preset": name, **deepcopy(PRESETS[name])}, epochs, changes)
    path = Path(name)
    if not path.is_file():
        raise BadInputError(f"config {name}: neither a preset ({', '.join(PRESETS)}) nor a YAML file")
    return _with_changes(name, _read(path), epochs, changes)


def fine_tuning_rate(bits: int) -> float:
    """Return the share of the model's learning rate with which it is trained for few bits.

    Of these two, the higher one is worse at 4 and 8 bits, the lower one at 2, where weights have to move further to
    round to another value (docs/results.md).
    """
    return 0.3 if bits == 2 else 0.05


def load_for_fine_tuning(
    model: Path, preset: str | None, bits: int, *, epochs: int | None = None, changes: Sequence[str] = ()
) -> TrainConfig:
    """Load the settings of a quantisation-aware training: those that its model was trained with, but with fewer
    epochs and a lower learning rate.

    Args:
        model: The model.pt. The config.json next to it has the settings.
        preset: The preset that the model was trained with, used if there is no config.json.
        bits: Bits per weight.
        epochs: Replaces the number of epochs.
        changes: As in `load`, but not of entries of the networks.

    Raises:
        BadInputError: There is neither a config.json nor a known preset, or a trained model does not allow a change.
    """
    for change in changes:
        if change.startswith(("student.", "teacher.")):
            raise BadInputError(f"--set {change}: {model} is already trained, its networks can't be changed")
    path = model.with_name("config.json")
    if path.is_file():
        values = _read(path)
    elif preset in PRESETS:
        values = {"preset": preset, **deepcopy(PRESETS[preset])}
    else:
        raise BadInputError(f"{model}: how it was trained is not known; put its config.json next to it")
    trained = _with_changes(str(path), values, None, ())
    share = fine_tuning_rate(bits)
    if trained.quantization_aware is not None:  # the model was itself trained on
        share /= fine_tuning_rate(trained.quantization_aware)
    tuning = {
        "epochs": FINE_TUNING_EPOCHS,
        "learning_rate": share * trained.learning_rate,
        "rate_phase": 0.0,
        "quantization_aware": bits,
    }
    return _with_changes(str(model), trained.to_dict() | tuning, epochs, changes)


def _read(path: Path) -> dict[str, Any]:
    values = yaml_text.read(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadInputError(f"config {path}: expected a mapping of entries such as epochs: 40")
    return values


def _with_changes(name: str, values: dict[str, Any], epochs: int | None, changes: Sequence[str]) -> TrainConfig:
    for change in changes:
        _apply(values, change)
    if epochs is not None:
        values["epochs"] = epochs
    try:
        return TrainConfig(**{str(key): value for key, value in values.items()})
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from error


def _apply(values: dict[str, Any], change: str) -> None:
    """Apply one "key=value" or "student.key=value"; the value is YAML."""
    key, equals, text = change.partition("=")
    part, dot, entry = key.partition(".")
    value = yaml_text.parsed(text, f"--set {change}")
    if not equals or (dot and part not in ("student", "teacher")) or key in ("student", "teacher", "preset"):
        raise BadInputError(f"--set {change}: expected KEY=VALUE, such as batch=16 or student.attention=none")
    if dot:
        given = values.get(part) or {}
        values[part] = {**given, entry: value} if isinstance(given, dict) else given  # refused by TrainConfig
    else:
        values[key] = value
