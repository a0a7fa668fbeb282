"""Logits and accuracy of a network on clips that it was not trained on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mksgn.common.progress import track
from mksgn.train.datasets.clips import Clip, ClipSet
from mksgn.train.parallel import Group
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import SpikeCount, Spikes, body_mean
from mksgn.train.teacher import Teacher
from mksgn.train.transforms import body_inputs

EVALUATION_BODIES = EVALUATION_CLIPS = 64


@torch.no_grad()
def predict(
    network: nn.Module,
    inputs: np.ndarray,
    clip_of_body: np.ndarray,
    clips: int,
    device: str = "cpu",
    spikes: Spikes | None = None,
) -> Tensor:
    """Compute the logits of clips in batches of bodies; leaves the network in evaluation mode.

    Args:
        network: A student or teacher.
        inputs: Bodies (L, 3 · streams, T, V).
        clip_of_body: Index of the clip of each body (L,).
        clips: Number of clips.
        device: Where the network is.
        spikes: Receives a student's spikes, batch after batch.

    Returns:
        Logits (clips, classes).
    """
    network.eval()
    recorders = () if spikes is None else (spikes,)
    starts = range(0, len(inputs), EVALUATION_BODIES)
    batches = [
        network(torch.from_numpy(inputs[i : i + EVALUATION_BODIES]).to(device), *recorders).cpu()
        for i in track(starts, len(starts), "batches evaluated in torch")
    ]
    return body_mean(torch.cat(batches), torch.from_numpy(clip_of_body), clips)


def top1(logits: Tensor, labels: np.ndarray) -> float:
    """Compute the share of clips whose largest logit is their label's."""
    return float((logits.argmax(1).numpy() == labels).mean())


def evaluate(
    network: nn.Module,
    normaliser: StreamNormaliser,
    held_out: ClipSet,
    copies_of: Callable[[Sequence[Clip]], np.ndarray],
    group: Group,
) -> dict[str, Any]:
    """Compute a network's accuracy on held-out clips, and a student's firing rate.

    Each process evaluates its share of the clips, a few at a time: a benchmark's test part need not
    fit in memory.

    Args:
        network: A student or teacher on the group's device.
        normaliser: Makes the network's inputs.
        held_out: The clips.
        copies_of: Tells which clips, (clips,) bool, are bitwise copies of training clips.
        group: The processes of the training.

    Returns:
        `held_out_top1`; where some clips are copies, their number `held_out_copies` and
        `held_out_top1_without_copies`;
        `held_out_firing_rate`, spikes per neuron and step.
    """
    hits = copies = hits_without_copies = 0.0  # floats, as sums over the processes are
    count = SpikeCount()
    share = range(group.rank, len(held_out), group.size)
    starts = range(0, len(share), EVALUATION_CLIPS)
    for i in track(starts, len(starts), "batches of held-out clips"):
        clips = [held_out.clips[index] for index in share[i : i + EVALUATION_CLIPS]]
        inputs, clip_of_body = body_inputs(clips, normaliser)
        spikes = None if isinstance(network, Teacher) else count
        logits = predict(network, inputs, clip_of_body, len(clips), group.device, spikes)
        hit = logits.argmax(1).numpy() == np.array([clip.label for clip in clips])
        copied = copies_of(clips)
        hits, copies = hits + int(hit.sum()), copies + int(copied.sum())
        hits_without_copies += int((hit & ~copied).sum())
    hits, copies, hits_without_copies, events, decisions = group.sums(
        hits, copies, hits_without_copies, count.spikes, count.decisions
    )
    results: dict[str, Any] = {"held_out_top1": hits / len(held_out)}
    if 0 < copies < len(held_out):
        results["held_out_copies"] = int(copies)
        results["held_out_top1_without_copies"] = hits_without_copies / (len(held_out) - copies)
    if decisions:
        results["held_out_firing_rate"] = events / decisions
    return results
