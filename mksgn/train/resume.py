"""The folder of a training: a line per epoch, and the state from which --resume continues bit for
bit."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mksgn.common.errors import BadInputError, first_line
from mksgn.common.quoting import printable, quoted
from mksgn.common.replacement import FileSet
from mksgn.common.writing import write_text
from mksgn.train import torch_file
from mksgn.train.checkpoint import save_atomically
from mksgn.train.restored import check_like, check_plain

MODEL_FILE, TEACHER_FILE = "model.pt", "teacher.pt"
STATE_FILE, METRICS_FILE, CONFIG_FILE = "state.pt", "metrics.jsonl", "config.json"


def training_files(product: str) -> FileSet:
    """Return the files of a training whose model is `product`."""
    return FileSet(
        "training",
        names=(product, STATE_FILE, METRICS_FILE, CONFIG_FILE),
        results=(MODEL_FILE, TEACHER_FILE),
        resumable=(STATE_FILE,),
        option="--out",
    )


class Stateful(Protocol):
    """A module, optimiser or schedule."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class TrainingFolder:
    """Files of one training.

    `product` is the model that the training makes; `settings` (JSON) is what a resumed training
    must share with the interrupted one to end in the same weights; `parts` hold what changes from
    step to step.
    """

    product: Path
    settings: str
    parts: dict[str, Stateful]

    @property
    def state(self) -> Path:
        return self.product.with_name(STATE_FILE)

    @property
    def metrics(self) -> Path:
        return self.product.with_name(METRICS_FILE)

    def restore(self) -> list[dict[str, Any]]:
        """Load the parts from state.pt, if there is one.

        Returns:
            The lines of the epochs that are done.

        Raises:
            BadInputError: The file is damaged, or of a training with other settings.
        """
        if not self.state.exists():
            return []
        saved = torch_file.read(self.state, "start over with --overwrite instead of --resume")
        try:
            before = _settings(saved)
        except Exception as error:  # JSON's errors, and what a wrong type raises
            raise self._not_resumable(error) from error
        now = json.loads(self.settings)
        changed = [
            f"{key} {quoted(before.get(key))} → {quoted(now[key])}" for key in now if before.get(key) != now[key]
        ]
        if changed:
            raise BadInputError(
                f"{self.state}: belongs to another training ({'; '.join(changed)}); use the same settings, "
                "--overwrite, or another --out"
            )
        try:
            _check_lines(saved["metrics"])
            for name, part in self.parts.items():
                _check_part(saved[name], part, name)
                part.load_state_dict(saved[name])
        except Exception as error:  # the parts raise almost any error
            raise self._not_resumable(error) from error
        return saved["metrics"]

    def _not_resumable(self, error: Exception) -> BadInputError:
        return BadInputError(
            f"{self.state}: cannot be resumed ({printable(first_line(error))}); start over with --overwrite instead of --resume"
        )

    def start(self, lines: list[dict[str, Any]], config: dict[str, Any]) -> None:
        """Write config.json, and metrics.jsonl with the epochs that are done."""
        self._write_metrics(lines)
        write_text(self.product.with_name(CONFIG_FILE), json.dumps(config, indent=2) + "\n")

    def keep(self, lines: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl with the last epoch's line, then the state; if the process is killed in between, a
        resumed training repeats the epoch."""
        self._write_metrics(lines)
        states = {name: part.state_dict() for name, part in self.parts.items()}
        save_atomically({**states, "metrics": lines, "settings": self.settings}, self.state)

    def _write_metrics(self, lines: list[dict[str, Any]]) -> None:
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in lines))


def _settings(saved: Any) -> dict[str, Any]:
    """Return the settings of the training that a state belongs to."""
    before = json.loads(saved["settings"])
    if not isinstance(before, dict):
        raise BadInputError("settings: expected a dictionary")
    return before


def _check_lines(lines: Any) -> None:
    """Raise BadInputError unless there is a line for each epoch that is done, in order."""
    check_plain(lines, "metrics")
    if not isinstance(lines, list):
        raise BadInputError(f"metrics is of type {type(lines).__name__}, expected a list")
    for epoch, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or line.get("epoch") != epoch:
            raise BadInputError(f"metrics: line {epoch} is not of epoch {epoch}")


def _check_part(saved: Any, part: Stateful, name: str) -> None:
    """Raise BadInputError unless a saved state has the form of this part's own state."""
    form = part.state_dict()
    if not isinstance(part, Optimizer) or not isinstance(saved, dict):
        return check_like(saved, form, name)
    # a new optimiser has no moments yet: their form follows from its parameters
    of_groups = {"state": {}, "param_groups": form["param_groups"]}
    check_like({**saved, "state": {}}, of_groups, name)
    parameters = [p for group in part.param_groups for p in group["params"]]
    for index, moments in saved["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise BadInputError(
                f"{name}: has moments of parameter {quoted(index)}, but there are {len(parameters)} parameters"
            )
        check_like(moments, _moments(part, parameters[index]), f"{name}.state.{index}")
    return None


def _moments(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    """Return what the optimiser keeps for a parameter, as tensors without values."""
    form = torch.empty_like(parameter, device="meta")
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer": form}
    return {"step": torch.empty((), device="meta"), "exp_avg": form, "exp_avg_sq": form}


def weights_digest(network: nn.Module, more: str = "") -> str:
    """Compute a digest of a network's weights, whatever device they are on, and of `more`."""
    digest = hashlib.blake2b(more.encode(), digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
