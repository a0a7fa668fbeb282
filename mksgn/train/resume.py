"""The folder of a training: a line per epoch, and the state from which --resume continues to the
bit."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mksgn.common.errors import BadInputError
from mksgn.common.replacement import FileSet
from mksgn.common.writing import write_text
from mksgn.train.checkpoint import save_atomically

MODEL_FILE, TEACHER_FILE = "model.pt", "teacher.pt"
STATE_FILE, METRICS_FILE, CONFIG_FILE = "state.pt", "metrics.jsonl", "config.json"


def training_files(product: str) -> FileSet:
    """The files of a training whose model is `product`."""
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
        if not self.state.is_file():
            return []
        try:
            saved = torch.load(self.state, map_location="cpu", weights_only=True)
            before = json.loads(saved["settings"])
        except Exception as error:  # torch raises pickle, zip, runtime and EOF errors alike
            raise BadInputError(
                f"{self.state}: cannot be resumed ({type(error).__name__}); start over with --overwrite instead of --resume"
            ) from error
        now = json.loads(self.settings)
        changed = [f"{key} {before.get(key)} → {now[key]}" for key in now if before.get(key) != now[key]]
        if changed:
            raise BadInputError(
                f"{self.state}: is of another training ({'; '.join(changed)}); use the same settings, --overwrite, or another --out"
            )
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        return saved["metrics"]

    def start(self, lines: list[dict[str, Any]], config: dict[str, Any]) -> None:
        """Write config.json, and metrics.jsonl with the epochs that are done."""
        self._write_metrics(lines)
        write_text(self.product.with_name(CONFIG_FILE), json.dumps(config, indent=2) + "\n")

    def keep(self, lines: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl with the last epoch's line, then the state; killed in between, a resumed training
        repeats the epoch."""
        self._write_metrics(lines)
        states = {name: part.state_dict() for name, part in self.parts.items()}
        save_atomically({**states, "metrics": lines, "settings": self.settings}, self.state)

    def _write_metrics(self, lines: list[dict[str, Any]]) -> None:
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in lines))


def weights_digest(network: nn.Module, more: str = "") -> str:
    """Compute a digest of a network's weights, whatever device they are on, and of `more`."""
    digest = hashlib.blake2b(more.encode(), digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
