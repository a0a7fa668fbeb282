"""The training loop: AdamW, warm-up and cosine, last-epoch weights (never the best test epoch), one line per epoch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mksgn.train.checkpoint import TrainedModel, save, save_atomically
from mksgn.train.config import TrainConfig
from mksgn.train.datasets.clips import ClipSet
from mksgn.train.errors import BadInputError
from mksgn.train.parallel import Group
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig, body_mean
from mksgn.train.transforms import TrainingClips, lanes

EVALUATION_LANES = 64


@torch.no_grad()
def predict(
    student: nn.Module, inputs: np.ndarray, clip_of_lane: np.ndarray, clips: int, device: str = "cpu"
) -> Tensor:
    """Logits (clips, classes) of lanes (L, 12, T, V), in batches; the student is left in evaluation mode."""
    student.eval()
    batches = [
        student(torch.from_numpy(inputs[i : i + EVALUATION_LANES]).to(device)).cpu()
        for i in range(0, len(inputs), EVALUATION_LANES)
    ]
    return body_mean(torch.cat(batches), torch.from_numpy(clip_of_lane), clips)


def top1(logits: Tensor, labels: np.ndarray) -> float:
    return float((logits.argmax(1).numpy() == labels).mean())


def train(
    config: TrainConfig,
    training: ClipSet,
    held_out: ClipSet,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda line: None,
) -> TrainedModel:
    """Train and leave model.pt, metrics.jsonl, config.json and state.pt (for --resume) in `out`.

    Every epoch draws from its own generator, seeded by (seed, epoch), so that a resumed training sees the same batches.
    """
    if not training.clips or not held_out.clips:
        raise BadInputError(f"{training.source}: nothing to train on or to validate with (split {training.split})")
    if out.exists() and not out.is_dir():
        raise BadInputError(f"{out}: is a file; name a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    student_config = StudentConfig.from_dict({**config.student, "graph": training.graph, "classes": training.classes})
    student = Student(student_config).to(device)
    group = Group(device)
    normaliser = StreamNormaliser.fit(training.clips, student_config.frames)
    data = TrainingClips(training.clips)
    inputs, clip_of_lane = lanes(held_out.clips, normaliser)
    steps_per_epoch = math.ceil(len(data) / config.batch)
    optimizer = torch.optim.AdamW(_groups(student, config.weight_decay), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(config, config.epochs * steps_per_epoch))
    first, metrics, state = 0, out / "metrics.jsonl", out / "state.pt"
    lines: list[dict[str, Any]] = []
    # what a resumed training must share with the one that was interrupted, to end in the same weights
    settings = json.dumps(
        {
            **config.to_dict(),
            "student": student_config.to_dict(),
            "seed": seed,
            "source": training.source,
            "clips": len(data),
        }
    )
    if resume and state.is_file():
        saved = _saved(state, settings, device)
        student.load_state_dict(saved["student"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
        lines = saved["metrics"]
    if group.leads:
        metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        (out / "config.json").write_text(
            json.dumps({**config.to_dict(), "student": student_config.to_dict()}, indent=2) + "\n"
        )
    loss_of = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing, reduction="sum")
    for epoch in range(first, config.epochs):
        start, total, correct = time.perf_counter(), 0.0, 0.0
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(data), generator=generator)
        if group.size > 1:  # each process augments its own share
            generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * group.size + group.rank)
        student.train()
        for index in order.split(config.batch):
            if len(index) < group.size:
                continue  # the last few clips, fewer than there are processes
            share = group.share(index)
            batch, clip_of, labels = data.batch(share, normaliser, config, generator)
            if not lines and group.size > 1 and not schedule.last_epoch:
                with torch.no_grad():  # the first batch sets the attention's gains: everybody takes the leader's
                    student(batch.to(device))
                group.take_from_leader(student)
            logits = body_mean(student(batch.to(device)), clip_of.to(device), len(share))
            loss = loss_of(logits, labels.to(device)) / len(index)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            group.sum_gradients(student.parameters())
            nn.utils.clip_grad_norm_(student.parameters(), config.clip_gradient)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(index)
            correct += int((logits.argmax(1).cpu() == labels).sum())
        total, correct = group.sums(total, correct)
        group.average_buffers(student)
        if not math.isfinite(total):
            raise BadInputError(
                f"epoch {epoch + 1}: the loss is not finite; lower learning_rate (now {config.learning_rate})"
            )
        line: dict[str, Any] = {"epoch": epoch + 1, "loss": total / len(data), "train_top1": correct / len(data)}
        if group.leads and (epoch + 1 == config.epochs or (epoch + 1) % 4 == 0):
            logits = predict(student, inputs, clip_of_lane, len(held_out), device)
            line["held_out_top1"] = top1(logits, held_out.labels)
        line["seconds"] = time.perf_counter() - start
        lines.append(line)
        if not group.leads:
            continue
        with open(metrics, "a") as file:
            file.write(json.dumps(line) + "\n")
        save_atomically(
            {
                "student": student.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
                "metrics": lines,
                "settings": settings,
            },
            state,
        )
        report(line)
    facts = {
        "preset": config.preset,
        "source": training.source,
        "split": training.split,
        "seed": seed,
        "epochs": config.epochs,
        "clips": len(training),
        "held_out_clips": len(held_out),
        "held_out_top1": lines[-1].get("held_out_top1"),
        "processes": group.size,
    }
    model = TrainedModel(student.cpu().eval(), normaliser, facts)
    if group.leads:
        save(model, out / "model.pt")
    group.close()
    return model


def _saved(path: Path, settings: str, device: str) -> dict[str, Any]:
    """The state of an interrupted training, or BadInputError where it is damaged or another training's."""
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
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


def _groups(student: Student, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on synapses only: decaying gains, batch norms or biases would silence populations."""
    decayed = [p for p in student.parameters() if p.dim() >= 2]
    kept = [p for p in student.parameters() if p.dim() < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _warmup_cosine(config: TrainConfig, total: int) -> Callable[[int], float]:
    warmup = max(1, round(config.warmup * total))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))) + 1e-3

    return factor
