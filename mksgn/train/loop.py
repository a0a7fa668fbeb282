"""The training loop. The model has the weights of the last epoch, never of the best test epoch."""

import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mksgn.common.errors import BadInputError
from mksgn.train import optimizers
from mksgn.train.checkpoint import TrainedModel, TrainedTeacher, save, save_teacher
from mksgn.train.config import TrainConfig
from mksgn.train.datasets.clips import ClipSet
from mksgn.train.distill import Distillation, StudentObjective, TeacherObjective, label_of, weighted_sum
from mksgn.train.evaluate import evaluate
from mksgn.train.parallel import Group, leads
from mksgn.train.resume import MODEL_FILE, TEACHER_FILE, TrainingFolder, training_files, weights_digest
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import Teacher, TeacherConfig
from mksgn.train.transforms import TrainingClips

EVALUATE_EVERY = 4  # epochs; only where the held-out clips are not a benchmark's test part

Objective = StudentObjective | TeacherObjective
Line = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """The inputs of a training, whatever network it trains.

    `report` receives each epoch's line, `progress` wraps the batches of an epoch.
    """

    config: TrainConfig
    training: ClipSet
    held_out: ClipSet
    out: Path
    seed: int = 0
    device: str = "cpu"
    resume: bool = False
    overwrite: bool = False
    report: Callable[[Line], None] = lambda line: None
    progress: Callable[[Iterable, int, str], Iterable] = lambda items, total, label: items

    def __post_init__(self) -> None:
        if not len(self.training) or not len(self.held_out):
            raise BadInputError(
                f"{self.training.source}: nothing to train on or to validate with (split {self.training.split})"
            )
        torch.manual_seed(self.seed)

    def writing(self, product: str) -> AbstractContextManager[Path | None]:
        """Reserve the folder for this training in the first process, as `FileSet.writing`; yield None in others."""
        if not leads():
            return nullcontext()
        return training_files(product).writing(self.out, resume=self.resume, overwrite=self.overwrite)

    @property
    def data(self) -> dict[str, Any]:
        """Entries of a network's config that come from the data."""
        return {"graph": self.training.graph, "classes": self.training.classes}


def train(
    config: TrainConfig,
    training: ClipSet,
    held_out: ClipSet,
    out: Path,
    *,
    teacher: TrainedTeacher | None = None,
    start: TrainedModel | None = None,
    **options: Any,
) -> TrainedModel:
    """Train a student and leave model.pt, metrics.jsonl, config.json and state.pt (for --resume) in
    `out`.

    Every epoch draws from its own generator, seeded by (seed, epoch), so that a resumed training
    sees the same batches.

    Args:
        config: What to train and how.
        training: Clips to train on.
        held_out: Clips to evaluate on.
        out: Folder for the files.
        teacher: The student learns from it too (mksgn/train/distill).
        start: The model that a quantisation-aware training starts from; it is not changed.
        **options: `seed`, `device`, `resume`, `overwrite`, `report`, `progress` (see `Task`).

    Raises:
        BadInputError: An empty part, a teacher or a start that was trained on another split, a loss that is not
            finite, a state of another training, a training in `out` that is neither to be resumed nor replaced, or
            another process that writes there.
    """
    task = Task(config, training, held_out, out, **options)
    if (start is None) != (config.quantization_aware is None):
        raise BadInputError(
            "quantization_aware and a trained model to start from need each other; give both or neither"
        )
    network: Any
    if start is None:
        network = student = Student(StudentConfig(**{**config.student, **task.data}))
        normalisers = [StreamNormaliser.fit(training.clips, student.config.frames, student.config.streams)]
    else:
        network = _quantization_aware(start, task)
        student, normalisers = network.student, [start.normaliser]
    distillation = None
    if teacher is not None:
        _check_split("teacher", teacher.training, training)
        distillation = Distillation(student.config, teacher.teacher)
        normalisers.append(teacher.normaliser)
    with task.writing(MODEL_FILE) as place:
        trainer = Trainer(task, StudentObjective(network, config, distillation), normalisers, place)
        facts = trainer.run() | ({} if teacher is None else {"teacher": teacher.training})
        model = TrainedModel(student.cpu().eval(), normalisers[0], facts)
        if start is not None:
            model.training["start"] = start.training
            model.quantization = network.quantization
        trainer.finish(lambda: save(model, trainer.folder.product))
    return model


def _quantization_aware(start: TrainedModel, task: Task) -> Any:
    """Make the network of a quantisation-aware training from a copy of a trained student.

    Raises:
        BadInputError: The student is of another data set or split, or cannot be quantised.
    """
    from mksgn.export.quantization.aware import quantization_aware

    config, training = start.student.config, task.training
    for what, own, given in [("graph", config.graph, training.graph), ("classes", config.classes, training.classes)]:
        if own != given:
            raise BadInputError(
                f"the model's {what}: {own}, the data's {what}: {given}; name the data that it was trained on with --data"
            )
    _check_split("model", start.training, training)
    assert task.config.quantization_aware is not None
    return quantization_aware(start, task.config.quantization_aware, training)


def _check_split(what: str, facts: dict[str, Any], training: ClipSet) -> None:
    """Raise BadInputError for a network that may have seen the held-out clips."""
    split = facts.get("split", training.split)
    if split != training.split:
        raise BadInputError(
            f"the {what} was trained on split {split}, the student is on {training.split}: the {what} may have "
            f"seen the held-out clips; train a {what} with --split {training.split}"
        )


def train_teacher(
    config: TrainConfig, training: ClipSet, held_out: ClipSet, out: Path, **options: Any
) -> TrainedTeacher:
    """Train a teacher and leave teacher.pt and the other files of `train` in `out`; arguments as
    there."""
    if config.quantization_aware is not None:
        raise BadInputError("quantization_aware is for students; a teacher has no spikes and is not quantised")
    task = Task(config, training, held_out, out, **options)
    teacher = Teacher(TeacherConfig(**{**config.teacher, **task.data}))
    normaliser = StreamNormaliser.fit(training.clips, teacher.config.frames, teacher.config.streams)
    with task.writing(TEACHER_FILE) as place:
        trainer = Trainer(task, TeacherObjective(teacher, config), [normaliser], place)
        model = TrainedTeacher(teacher, normaliser, trainer.run())
        teacher.cpu().eval()
        trainer.finish(lambda: save_teacher(model, trainer.folder.product))
    return model


class Trainer:
    """Trains an objective on this process's share of the clips. `place` is where the first process writes."""

    def __init__(self, task: Task, objective: Objective, normalisers: list[StreamNormaliser], place: Path | None):
        self.task, self.config = task, task.config
        self.objective, self.normalisers = objective, normalisers
        self.group = Group(task.device)
        self.device = self.group.device
        objective.to(self.device)
        distillation = objective.distillation
        if distillation is not None:
            distillation.teacher.to(self.device)
        if self.device != "cpu":  # cuDNN would round the operands of convolutions to 10 bits
            torch.backends.cudnn.allow_tf32 = self.config.precision == "mixed"
        self.data = TrainingClips(task.training.clips, self.device, len(task.training.classes))
        steps = self.config.epochs * math.ceil(len(self.data) / self.config.batch)
        self.optimizer, self.schedule = optimizers.build(objective, self.config, steps)
        self.rates, self.passes = False, self.recordable_passes()
        settings = {
            **self.config.to_dict(),
            "network": objective.network.config.to_dict(),
            "start_digest": self._start_digest(),
            "seed": task.seed,
            "source": task.training.source,
            "split": task.training.split,
            "clips": len(self.data),
            "clips_digest": self.data.fingerprint,
            "teacher_digest": None if distillation is None else weights_digest(distillation.teacher),
        }
        product = {"student": MODEL_FILE, "teacher": TEACHER_FILE}[objective.kind]
        self.group.sums(0.0)  # wait until the first process has its folder; the others look for it
        self.folder = TrainingFolder(
            (place or training_files(product).begun(task.out)) / product,
            json.dumps(settings),
            {"objective": objective, "optimizer": self.optimizer, "schedule": self.schedule},
        )

    def _start_digest(self) -> str | None:
        """Return a digest of the weights and scales that a quantisation-aware training starts from."""
        network = self.objective.network
        if isinstance(network, Student | Teacher):
            return None
        return weights_digest(network.student, json.dumps(network.quantization.scales))

    def run(self) -> dict[str, Any]:
        """Train for the remaining epochs; returns the facts to store with the model."""
        task = self.task
        lines = self.folder.restore() if task.resume else []
        if self.group.sums(len(lines)) != [self.group.size * len(lines)]:
            raise BadInputError(
                f"{self.folder.state}: not the same for all processes; --resume needs an --out that they share"
            )
        if self.group.leads:
            network = {self.objective.kind: self.objective.network.config.to_dict()}
            self.folder.start(lines, {**self.config.to_dict(), **network})
        for epoch in range(len(lines), self.config.epochs):
            try:
                lines.append(self.epoch(epoch))
            except torch.cuda.OutOfMemoryError as error:
                raise BadInputError(
                    f"epoch {epoch + 1}: the GPU's memory is full; lower batch (now {self.config.batch})"
                ) from error
            if self.group.leads:
                self.folder.keep(lines)
                task.report(lines[-1])
        facts = {
            "preset": self.config.preset,
            "source": task.training.source,
            "split": task.training.split,
            "seed": task.seed,
            "epochs": self.config.epochs,
            "clips": len(task.training),
            "held_out_clips": len(task.held_out),
            "processes": self.group.size,
        }
        return facts | {name: value for name, value in lines[-1].items() if name.startswith("held_out")}

    def finish(self, write: Callable[[], None]) -> None:
        """Write the model in the first process, and close the group."""
        if self.group.leads:
            write()
        self.group.close()

    def epoch(self, epoch: int) -> Line:
        """Train on all clips once and return the epoch's line of metrics.jsonl."""
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(self.task.seed * 1_000_003 + epoch)
        batches = torch.randperm(len(self.data), generator=generator).split(self.config.batch)
        if self.group.size > 1:  # each process augments its own share
            generator = torch.Generator().manual_seed(
                (self.task.seed * 1_000_003 + epoch) * self.group.size + self.group.rank
            )
        rates = epoch < int(self.config.rate_phase * self.config.epochs)
        if isinstance(self.objective.network, Student) and rates != self.rates:
            self.objective.network.use_rates(rates)
            self.rates, self.passes = rates, self.recordable_passes()
        self.objective.train()
        totals = torch.zeros(len(self.objective.weights) + 1, dtype=torch.float64, device=self.device)
        for index in self.task.progress(batches, len(batches), f"epoch {epoch + 1}/{self.config.epochs}"):
            if len(index) >= self.group.size:  # skip the last few clips if fewer than the processes
                totals += self.step(index, generator)
        *losses, correct = self.group.sums(*totals.tolist())
        self.group.average_buffers(self.objective)
        by_name = {name: total / len(self.data) for name, total in zip(self.objective.weights, losses, strict=True)}
        loss = sum(self.objective.weights[name] * value for name, value in by_name.items())
        if not math.isfinite(loss):
            raise BadInputError(
                f"epoch {epoch + 1}: the loss is not finite; lower learning_rate (now {self.config.learning_rate})"
            )
        line: Line = {
            "epoch": epoch + 1,
            **({"phase": "rates"} if rates else {}),
            "loss": loss,
            "losses": by_name,
            "train_top1": correct / len(self.data),
        }
        last = epoch + 1 == self.config.epochs
        if last or (self.task.held_out.validation and (epoch + 1) % EVALUATE_EVERY == 0):
            line |= evaluate(
                self.objective.network, self.normalisers[0], self.task.held_out, self.data.copies, self.group
            )
        line["seconds"] = time.perf_counter() - start
        return line

    def step(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Take one step of the optimiser on this process's share of a batch.

        Args:
            index: Indices of the batch's clips, of all processes.
            generator: Draws the augmentation.

        Returns:
            Sums over the share's clips: of each loss, and of correct predictions (losses + 1,),
            float64.
        """
        share = self.group.share(index)
        batch, clip_of, labels = self.data.batch(share, self.normalisers, self.config, generator)
        if self.group.size > 1 and self.schedule.last_epoch == 0:
            with torch.no_grad():  # the first batch sets the attention's gains; all take the first process's
                self.objective(batch, clip_of, labels)
            self.group.take_from_leader(self.objective)
        sums = self.passes(len(index), clip_of, labels, *batch)
        self.group.sum_gradients(self.objective.parameters())
        nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_gradient)
        self.optimizer.step()
        self.schedule.step()
        return sums

    def recordable_passes(self) -> Callable[..., Tensor]:
        """Return the function that computes a step's gradients, recorded where possible. A quantisation-aware network
        computes on the CPU between its layers, which a GPU cannot record."""
        if self.device == "cpu" or self.config.quantization_aware is not None:
            return self.forward_and_backward
        from mksgn.train.gpu import Recorded

        return Recorded(self.forward_and_backward, list(self.objective.parameters()))

    def forward_and_backward(self, clips: int, clip_of: Tensor, labels: Tensor, *batch: Tensor) -> Tensor:
        """Compute the gradients of a step's share of `clips` clips; returns the sums that `step` returns."""
        mixed = self.config.precision == "mixed"
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=mixed):
            losses, logits = self.objective(batch, clip_of, labels)
        sums = torch.stack([losses[name].sum() for name in self.objective.weights])
        self.optimizer.zero_grad(set_to_none=True)
        (weighted_sum(losses, self.objective.weights) / clips).backward()
        return torch.cat([sums.detach().double(), (logits.argmax(1) == label_of(labels)).sum().double()[None]])
