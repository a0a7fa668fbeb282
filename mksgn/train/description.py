"""What mksgn-train --describe prints about a config or a trained model: a table, or JSON."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mksgn.common.console import output, print_json
from mksgn.common.errors import BadInputError
from mksgn.common.progress import counting
from mksgn.common.tables import table
from mksgn.train import checkpoint, config
from mksgn.train import describe as describing
from mksgn.train.datasets import ClipSet, open_source
from mksgn.train.describe import Described
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import Teacher, TeacherConfig
from mksgn.train.transforms import body_inputs

SCHEMA = "mksgn.description/1"
DESCRIBED_CLIPS = 16
HEADINGS = ("layer", "shape", "parameters", "MACs", "times per clip", "firing rate", "can't fire")


@dataclass(frozen=True)
class Clips:
    """The clips on which firing rates are measured.
    Attributes:
        source: SOURCE of the command line.
        split: Split of the source; None: the default.
        limit: Number of clips; None: a few.
        seed: Seed of synthetic clips, and of untrained weights.
    """

    source: str
    split: str | None
    limit: int | None
    seed: int

    def open(self, part: str) -> ClipSet:
        return open_source(
            self.source, split=self.split, part=part, limit=self.limit or DESCRIBED_CLIPS, seed=self.seed
        )


@dataclass(frozen=True)
class Description:
    """The layers of a network; if it is untrained, as they are at its first training batch."""

    name: str
    trained: bool
    teacher: bool
    seed: int
    clips: ClipSet
    skeleton: str
    rows: list[Described]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        return sum(row.macs * row.passes for row in self.rows)


def described(name: str, changes: Sequence[str], source: Clips, *, teacher: bool) -> Description:
    """Describe the network of a config, as it is at the first training batch, or a trained model.pt.

    Args:
        name: A preset, a YAML file, or a model.pt.
        changes: Entries of the config to change, as for --set.
        source: The clips on which firing rates are measured.
        teacher: Describe the teacher.

    Raises:
        BadInputError: `changes` are given for a trained model, or something cannot be read.
    """
    trained, seed = name.endswith(".pt"), source.seed
    if trained and changes:
        raise BadInputError(f"--set {changes[0]}: {name} is already trained, its config can't be changed")
    clips = source.open("test" if trained else "train")
    skeleton = clips.graph
    if trained and teacher:
        network = checkpoint.load_teacher(Path(name)).teacher
        rows, skeleton = describing.teacher_layers(network), network.config.graph
    elif trained:
        model = checkpoint.load(Path(name))
        x = torch.from_numpy(body_inputs(clips.clips, model.normaliser)[0])
        with _showing_blocks(model.student, name, passes=1):
            rows = describing.student_layers(model.student, x)
    else:
        rows = _untrained(config.load(name, changes=changes), clips, seed, teacher=teacher)
    return Description(name, trained, teacher, seed, clips, skeleton, rows)


def _untrained(settings: config.TrainConfig, clips: ClipSet, seed: int, *, teacher: bool) -> list[Described]:
    torch.manual_seed(seed)
    shared = {"graph": clips.graph, "classes": clips.classes}
    if teacher:
        return describing.teacher_layers(Teacher(TeacherConfig(**{**settings.teacher, **shared})))
    student = Student(StudentConfig(**{**settings.student, **shared}))
    normaliser = StreamNormaliser.fit(clips.clips, student.config.frames, student.config.streams)
    x = torch.from_numpy(body_inputs(clips.clips, normaliser)[0])
    with _showing_blocks(student, settings.preset, passes=2):
        describing.calibrate_batch_norms(student, x)
        return describing.student_layers(student, x)


@contextmanager
def _showing_blocks(student: Student, name: str, *, passes: int) -> Iterator[None]:
    """Show the progress of `passes` passes through a student, layer by layer: the widest student takes a minute."""
    layers = [layer for block in student.blocks for layer in block]
    with counting(passes * len(layers), f"layers of {name}") as done:
        hooks = [layer.register_forward_hook(lambda *_: done(1)) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def show(descriptions: Iterable[Description], *, as_json: bool) -> None:
    """Print each description as a table as soon as it is ready, or all of them as one JSON document."""
    if as_json:
        print_json({"schema": SCHEMA, "networks": [_document(each) for each in descriptions]})
        return
    for description in descriptions:
        _print(description)


def _print(description: Description) -> None:
    what = f"the teacher of {description.name}" if description.teacher else description.name
    state = "trained" if description.trained else f"untrained, seed {description.seed}"
    clips = description.clips
    rows = []
    for row in description.rows:
        rate, never = ("–" if value is None else f"{value:.2%}" for value in (row.rate, row.unreachable))
        shape = " × ".join(map(str, row.shape))
        rows.append((row.name, shape, f"{row.parameters:,}", f"{row.macs:,}", str(row.passes), rate, never))
    title = f"{what}, {state}; {len(clips)} clips of {clips.source}, {description.skeleton}"
    output.print(table(title, HEADINGS, rows))
    output.print(f"{description.parameters:,} parameters; {description.macs:,} MACs per body of a clip")
    for line in describing.unable(description.rows):
        output.print(line)


def _document(description: Description) -> dict[str, Any]:
    """Return a description for JSON, with the names of run.json for entries that run.json has too."""
    clips = description.clips
    return {
        "name": description.name,
        "kind": "teacher" if description.teacher else "student",
        "trained": description.trained,
        "seed": description.seed,
        "data": {"source": clips.source, "split": clips.split, "clips": len(clips)},
        "skeleton": description.skeleton,
        "parameters": description.parameters,
        "macs": description.macs,
        "layers": [
            {
                "name": row.name,
                "shape": list(row.shape),
                "parameters": row.parameters,
                "macs": row.macs,
                "passes": row.passes,
                "firing_rate": row.rate,
                "unreachable": row.unreachable,
            }
            for row in description.rows
        ],
    }
