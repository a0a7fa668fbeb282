"""The training loop: last-epoch weights, never the best test epoch; one line per epoch; exact to resume."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mksgn.common.errors import BadInputError
from mksgn.train import optimizers
from mksgn.train.checkpoint import TrainedModel, TrainedTeacher, save, save_atomically, save_teacher
from mksgn.train.config import TrainConfig
from mksgn.train.datasets.clips import ClipSet
from mksgn.train.distill import Distillation, StudentObjective, TeacherObjective, weighted_sum
from mksgn.train.parallel import Group
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import SpikeCount, Spikes, Student, StudentConfig, body_mean
from mksgn.train.teacher import Teacher, TeacherConfig
from mksgn.train.transforms import TrainingClips, body_inputs

EVALUATION_BODIES = EVALUATION_CLIPS = 64
EVALUATE_EVERY = 4  # epochs; only where the held-out clips are no benchmark's test part

Objective = StudentObjective | TeacherObjective
Line = dict[str, Any]


@torch.no_grad()
def predict(
    network: nn.Module,
    inputs: np.ndarray,
    clip_of_body: np.ndarray,
    clips: int,
    device: str = "cpu",
    spikes: Spikes | None = None,
) -> Tensor:
    """Logits (clips, classes) of bodies (L, 3 · streams, T, V), in batches; the network is left in evaluation mode.

    A student hands its spikes to `spikes`, batch after batch.
    """
    network.eval()
    watch = () if spikes is None else (spikes,)
    batches = [
        network(torch.from_numpy(inputs[i : i + EVALUATION_BODIES]).to(device), *watch).cpu()
        for i in range(0, len(inputs), EVALUATION_BODIES)
    ]
    return body_mean(torch.cat(batches), torch.from_numpy(clip_of_body), clips)


def top1(logits: Tensor, labels: np.ndarray) -> float:
    return float((logits.argmax(1).numpy() == labels).mean())


def train(
    config: TrainConfig,
    training: ClipSet,
    held_out: ClipSet,
    out: Path,
    *,
    teacher: TrainedTeacher | None = None,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[Line], None] = lambda line: None,
    progress: Callable[[Iterable, int, str], Iterable] = lambda items, total, label: items,
) -> TrainedModel:
    """Train a student and leave model.pt, metrics.jsonl, config.json and state.pt (for --resume) in `out`.

    With a `teacher` it learns from that too (mksgn/train/distill). Every epoch draws from its own generator, seeded by (seed, epoch),
    so that a resumed training sees the same batches. `report` is given each epoch's line, `progress` wraps the batches of an epoch.
    Raises BadInputError for an empty part, a teacher of another split, a loss that is not finite, and a state of another training.
    """
    _check(training, held_out, out)
    torch.manual_seed(seed)
    student = Student(StudentConfig(**{**config.student, "graph": training.graph, "classes": training.classes}))
    normalisers = [StreamNormaliser.fit(training.clips, student.config.frames, student.config.streams)]
    distillation = None
    if teacher is not None:
        theirs = teacher.training.get("split", training.split)
        if theirs != training.split:
            raise BadInputError(
                f"the teacher learned on split {theirs}, the student's is {training.split}: it may have seen the clips that are "
                f"held out; train a teacher with --split {training.split}"
            )
        distillation = Distillation(student.config, teacher.teacher)
        normalisers.append(teacher.normaliser)
    fit = _Fit(
        StudentObjective(student, config, distillation), normalisers, training, held_out, out, seed, device, progress
    )
    facts = fit.run(resume, report) | ({} if teacher is None else {"teacher": teacher.training})
    model = TrainedModel(student.cpu().eval(), normalisers[0], facts)
    fit.finish(lambda: save(model, fit.product))
    return model


def train_teacher(
    config: TrainConfig,
    training: ClipSet,
    held_out: ClipSet,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[Line], None] = lambda line: None,
    progress: Callable[[Iterable, int, str], Iterable] = lambda items, total, label: items,
) -> TrainedTeacher:
    """Train a teacher and leave teacher.pt and the files of `train` in `out`."""
    _check(training, held_out, out)
    torch.manual_seed(seed)
    teacher = Teacher(TeacherConfig(**{**config.teacher, "graph": training.graph, "classes": training.classes}))
    normaliser = StreamNormaliser.fit(training.clips, teacher.config.frames, teacher.config.streams)
    fit = _Fit(TeacherObjective(teacher, config), [normaliser], training, held_out, out, seed, device, progress)
    model = TrainedTeacher(teacher, normaliser, fit.run(resume, report))
    teacher.cpu().eval()
    fit.finish(lambda: save_teacher(model, fit.product))
    return model


def _check(training: ClipSet, held_out: ClipSet, out: Path) -> None:
    if not len(training) or not len(held_out):
        raise BadInputError(f"{training.source}: nothing to train on or to validate with (split {training.split})")
    if out.exists() and not out.is_dir():
        raise BadInputError(f"{out}: is a file; name a folder with --out")
    out.mkdir(parents=True, exist_ok=True)


@dataclass
class _Fit:
    """One training: what is learnt, from what, and where it is kept."""

    objective: Objective
    normalisers: list[StreamNormaliser]
    training: ClipSet
    held_out: ClipSet
    out: Path
    seed: int
    device: str
    progress: Callable[[Iterable, int, str], Iterable]

    def __post_init__(self) -> None:
        self.group = Group(self.device)
        self.device = self.group.device
        self.objective.to(self.device)
        if self.objective.distillation is not None:
            self.objective.distillation.teacher.to(self.device)
        self.config = self.objective.config
        if self.device != "cpu":  # cuDNN would round the operands of convolutions to 10 bits
            torch.backends.cudnn.allow_tf32 = self.config.precision == "mixed"
        self.data = TrainingClips(self.training.clips)
        self.steps_per_epoch = math.ceil(len(self.data) / self.config.batch)
        self.optimizer, self.schedule = optimizers.build(
            self.objective, self.config, self.config.epochs * self.steps_per_epoch
        )
        self.lines: list[Line] = []

    @property
    def product(self) -> Path:
        """The file that this training is for."""
        return self.out / {"student": "model.pt", "teacher": "teacher.pt"}[self.objective.kind]

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed training must share with the one that was interrupted, to end in the same weights."""
        distillation = self.objective.distillation
        return {
            **self.config.to_dict(),
            "network": self.objective.network.config.to_dict(),
            "seed": self.seed,
            "source": self.training.source,
            "split": self.training.split,
            "clips": len(self.data),
            "clips_digest": self.data.fingerprint,
            "teacher_digest": None if distillation is None else weights_digest(distillation.teacher),
        }

    def run(self, resume: bool, report: Callable[[Line], None]) -> dict[str, Any]:
        """All epochs that are left; returns the facts to keep with the model."""
        state, metrics = self.out / "state.pt", self.out / "metrics.jsonl"
        settings = json.dumps(self.settings)
        if not resume and self.group.leads:
            for stale in (state, self.product):  # of another training: never to be taken for this one's
                stale.unlink(missing_ok=True)
        if resume and state.is_file():
            saved = _saved(state, settings)
            self.objective.load_state_dict(saved["objective"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.lines = saved["metrics"]
        if self.group.sums(len(self.lines)) != [self.group.size * len(self.lines)]:
            raise BadInputError(f"{state}: not seen alike by all processes; --resume needs an --out that they share")
        if self.group.leads:
            metrics.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
            whole = {**self.config.to_dict(), self.objective.kind: self.objective.network.config.to_dict()}
            (self.out / "config.json").write_text(json.dumps(whole, indent=2) + "\n")
        for epoch in range(len(self.lines), self.config.epochs):
            try:
                line = self.epoch(epoch)
            except torch.cuda.OutOfMemoryError as error:
                raise BadInputError(
                    f"epoch {epoch + 1}: the GPU's memory is full; lower batch (now {self.config.batch})"
                ) from error
            self.lines.append(line)
            if not self.group.leads:
                continue
            with open(metrics, "a") as file:
                file.write(json.dumps(line) + "\n")
            save_atomically(
                {
                    "objective": self.objective.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "metrics": self.lines,
                    "settings": settings,
                },
                state,
            )
            report(line)
        facts = {
            "preset": self.config.preset,
            "source": self.training.source,
            "split": self.training.split,
            "seed": self.seed,
            "epochs": self.config.epochs,
            "clips": len(self.training),
            "held_out_clips": len(self.held_out),
            "processes": self.group.size,
        }
        return facts | {name: value for name, value in self.lines[-1].items() if name.startswith("held_out")}

    def finish(self, write: Callable[[], None]) -> None:
        """One process writes; all leave together."""
        if self.group.leads:
            write()
        self.group.close()

    def epoch(self, epoch: int) -> Line:
        """One pass over the training clips."""
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        batches = torch.randperm(len(self.data), generator=generator).split(self.config.batch)
        if self.group.size > 1:  # each process augments its own share
            generator = torch.Generator().manual_seed(
                (self.seed * 1_000_003 + epoch) * self.group.size + self.group.rank
            )
        self.objective.train()
        totals = torch.zeros(len(self.objective.weights) + 1, dtype=torch.float64, device=self.device)
        for index in self.progress(batches, len(batches), f"epoch {epoch + 1}/{self.config.epochs}"):
            if len(index) >= self.group.size:  # else the last few clips, fewer than there are processes
                totals += self.step(index, generator)
        *losses, correct = self.group.sums(*totals.tolist())
        self.group.average_buffers(self.objective)
        by_name = {name: total / len(self.data) for name, total in zip(self.objective.weights, losses, strict=True)}
        loss = sum(self.objective.weights[name] * value for name, value in by_name.items())
        if not math.isfinite(loss):
            raise BadInputError(
                f"epoch {epoch + 1}: the loss is not finite; lower learning_rate (now {self.config.learning_rate})"
            )
        line: Line = {"epoch": epoch + 1, "loss": loss, "losses": by_name, "train_top1": correct / len(self.data)}
        last = epoch + 1 == self.config.epochs
        if last or (self.held_out.validation and (epoch + 1) % EVALUATE_EVERY == 0):
            line |= self.evaluate()
        line["seconds"] = time.perf_counter() - start
        return line

    def step(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """One step of the optimiser on this process's share of a batch; the sums over its clips of each loss, and of hits."""
        share = self.group.share(index)
        batch, clip_of, labels = self.data.batch(share, self.normalisers, self.config, generator)
        batch, clip_of, labels = [x.to(self.device) for x in batch], clip_of.to(self.device), labels.to(self.device)
        if self.group.size > 1 and self.schedule.last_epoch == 0:
            with torch.no_grad():  # the first batch sets the attention's gains: everybody takes the leader's
                self.objective(batch, clip_of, labels)
            self.group.take_from_leader(self.objective)
        mixed = self.config.precision == "mixed"
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=mixed):
            losses, logits = self.objective(batch, clip_of, labels)
        sums = torch.stack([losses[name].sum() for name in self.objective.weights])
        self.optimizer.zero_grad(set_to_none=True)
        (weighted_sum(losses, self.objective.weights) / len(index)).backward()
        self.group.sum_gradients(self.objective.parameters())
        nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_gradient)
        self.optimizer.step()
        self.schedule.step()
        return torch.cat([sums.detach().double(), (logits.argmax(1) == labels).sum().double()[None]])

    def evaluate(self) -> Line:
        """Top-1 on the held-out clips, and without those that are copies of training clips, where there are any; firing rate.

        Each process runs its share of the clips, a few at a time: a benchmark's test part need not fit in memory.
        """
        hits = copies = fresh_hits = 0.0  # sums over the processes are floats
        count = SpikeCount()
        mine = range(self.group.rank, len(self.held_out), self.group.size)
        for i in range(0, len(mine), EVALUATION_CLIPS):
            clips = [self.held_out.clips[index] for index in mine[i : i + EVALUATION_CLIPS]]
            inputs, clip_of_body = body_inputs(clips, self.normalisers[0])
            spikes = count if self.objective.kind == "student" else None
            logits = predict(self.objective.network, inputs, clip_of_body, len(clips), self.device, spikes)
            hit = logits.argmax(1).numpy() == np.array([clip.label for clip in clips])
            copied = self.data.copies(clips)
            hits, copies = hits + int(hit.sum()), copies + int(copied.sum())
            fresh_hits += int((hit & ~copied).sum())
        hits, copies, fresh_hits, events, decisions = self.group.sums(
            hits, copies, fresh_hits, count.spikes, count.decisions
        )
        found: Line = {"held_out_top1": hits / len(self.held_out)}
        if 0 < copies < len(self.held_out):
            found["held_out_copies"] = int(copies)
            found["held_out_top1_without_copies"] = fresh_hits / (len(self.held_out) - copies)
        if decisions:
            found["held_out_firing_rate"] = events / decisions
        return found


def weights_digest(network: nn.Module) -> str:
    """Tells two networks apart by their weights, on whatever device they are."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _saved(path: Path, settings: str) -> dict[str, Any]:
    """The state of an interrupted training, or BadInputError where it is damaged or another training's."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        theirs = json.loads(saved["settings"])
    except Exception as error:
        raise BadInputError(
            f"{path}: cannot be resumed ({type(error).__name__}); delete it, or train without --resume"
        ) from error
    ours = json.loads(settings)
    changed = [f"{key} {theirs.get(key)} → {ours[key]}" for key in ours if theirs.get(key) != ours[key]]
    if changed:
        raise BadInputError(
            f"{path}: is of another training ({'; '.join(changed)}); use the same settings, or another --out"
        )
    return saved
