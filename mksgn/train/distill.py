"""The losses of student and teacher, each a value per clip and logged separately.

    L = CE + alpha L_soft + beta L_feat + lambda R + L_silence    [paper] for the two kinds of distillation
    L_soft = tau² KL(softmax(z_T / tau) ‖ softmax(z_S / tau)), tau = 4 [ours]
    L_feat = mean_l mse(mean_S student_l, mean_S FTM_l(teacher_l)) [ours]; teacher 4, 7, 10 ↔ student 2, 4, 6
    FTM_l(F) = SN(BN(Conv1x1(repeat_S(interp_T(F_l)))))    [ours]; "feature translation module" [paper]
    R = mean firing rate over all neurons and steps, above a floor per population [ours]: penalises energy;
        with `rate_cost = synapses` each neuron is weighted by the number of synapses that its spikes reach
    L_silence = mean over attention's m and z of max(0, 1 - rate / attention_floor) [ours]: keeps attention firing

The FTM exists in training only and is trained with the student. The teacher is frozen, in
evaluation mode.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mksgn.common.errors import BadInputError
from mksgn.train.config import TrainConfig
from mksgn.train.layers import ConvBN, init_bn_biases, is_attention
from mksgn.train.neurons import LIF
from mksgn.train.student import Student, StudentConfig, body_mean
from mksgn.train.synapses import fan_out
from mksgn.train.teacher import Teacher, TeacherConfig


def layer_pairs(blocks: int, layers: int) -> list[tuple[int, int]]:
    """Pair student blocks with teacher layers, counted from 1: (2, 4), (4, 7), (6, 10) for six blocks
    and ten layers [ours].

    Other depths get up to three pairs at the same fractions of both depths.
    """
    pairs = [(-(-blocks * third // 3), 1 + (layers - 1) * third // 3) for third in (1, 2, 3)]
    return sorted(dict(pairs).items())


class FTM(nn.Module):
    """FTM_l(F) = SN(BN(Conv1x1(repeat_S(interp_T(F))))): teacher's features (L, C_t, T_t, V) →
    spikes (S, L, C_s, T_s, V).

    `interp_T` interpolates linearly to the student's number of frames. The current is the same at
    all S steps, so it is computed once.
    """

    def __init__(self, teacher_channels: int, student_channels: int, frames: int, steps: int, tau: float):
        super().__init__()
        self.frames, self.steps = frames, steps
        self.current, self.sn = ConvBN(teacher_channels, student_channels), LIF(tau)

    def forward(self, features: Tensor) -> Tensor:
        size = (self.frames, features.shape[3])
        resized = F.interpolate(features, size, mode="bilinear", align_corners=True)  # the joints' axis keeps its size
        current = self.current(resized)
        return self.sn(current.unsqueeze(0).expand(self.steps, *current.shape))


class Distillation(nn.Module):
    """The feature translation modules between a student and a frozen teacher of the same skeleton
    and classes.

    Raises:
        BadInputError: Skeleton or classes differ.
    """

    def __init__(self, student: StudentConfig, teacher: Teacher):
        super().__init__()
        taught: TeacherConfig = teacher.config
        for what, a, b in [("graph", student.graph, taught.graph), ("classes", student.classes, taught.classes)]:
            if a != b:
                raise BadInputError(f"teacher's {what}: {b}, student's {what}: {a}; train a teacher on the same data")
        self._teacher = [teacher.eval().requires_grad_(False)]  # in a list: neither trained nor saved with the student
        self.pairs = layer_pairs(len(student.widths), len(taught.widths))
        self.translate = nn.ModuleList(
            FTM(
                taught.widths[layer - 1] * len(taught.streams),
                student.widths[block - 1],
                student.block_frames[block - 1],
                student.steps,
                student.tau,
            )
            for block, layer in self.pairs
        )
        init_bn_biases(self)

    @property
    def teacher(self) -> Teacher:
        return self._teacher[0]

    def forward(self, x: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the teacher's logits (L, classes) and L_feat per body (L,) from bodies (L, 12, T,
        V) and the student's spikes."""
        with torch.no_grad():
            logits, features = self.teacher.look(x)
        losses = []
        for (block, layer), ftm in zip(self.pairs, self.translate, strict=True):
            rates, targets = spikes[f"block{block}_stc"].mean(0), ftm(features[layer - 1]).mean(0)
            losses.append((rates - targets).square().mean((1, 2, 3)))
        return logits.mean(0), torch.stack(losses).mean(0)


def soft_label_loss(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Compute L_soft per clip (B,) of logits (B, classes)."""
    target, actual = (F.log_softmax(z / temperature, dim=1) for z in (teacher, student))
    return temperature**2 * F.kl_div(actual, target, reduction="none", log_target=True).sum(1)


def mean_firing_rate(
    spikes: dict[str, Tensor], floor: float = 0.0, weights: Mapping[str, float] | None = None
) -> Tensor:
    """Compute the mean firing rate per body (L,) over all populations' neurons and steps.

    Args:
        spikes: By population, (S, L, *shape).
        floor: Only a population's rate above it counts: a penalty on the rest would silence those
            that fire least.
        weights: Weight of each population's neurons in the mean; None: all equal.
    """
    weight = dict.fromkeys(spikes, 1.0) if weights is None else weights
    decisions = {name: s[:, 0].numel() for name, s in spikes.items()}
    above = [
        weight[name] * (s.flatten(2).sum((0, 2)) - floor * decisions[name]).clamp_min(0) for name, s in spikes.items()
    ]
    return torch.stack(above).sum(0) / sum(weight[name] * count for name, count in decisions.items())


def silence(spikes: dict[str, Tensor], least: float) -> Tensor:
    """Compute how far attention's maps and values fire below `least`, as a share of it, per body (L,), averaged over
    m and z of all blocks."""
    rates = [s.flatten(2).mean((0, 2)) for name, s in spikes.items() if is_attention(name)]
    return (1 - torch.stack(rates) / least).clamp_min(0).mean(0)


class StudentObjective(nn.Module):
    """The student and its losses; with a `distillation`, its modules and losses too. Holds
    everything that is trained."""

    kind = "student"

    def __init__(self, student: Student, config: TrainConfig, distillation: Distillation | None = None):
        super().__init__()
        self.network, self.config, self.distillation = student, config, distillation
        self.fan_out = fan_out(student) if config.rate_cost == "synapses" else None
        self.weights = {"cross_entropy": 1.0}
        if distillation is not None:
            self.weights |= {"soft_label": config.soft_label_weight, "feature": config.feature_weight}
        if config.rate_weight:
            self.weights["rate"] = config.rate_weight
        if config.attention_floor and student.config.attention != "none":
            self.weights["silence"] = 1.0

    def forward(self, bodies: Sequence[Tensor], clip_of: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Compute losses per clip (B,) by name, and logits (B, classes).

        Args:
            bodies: The student's bodies (L, 12, T, V) and, with a teacher, the teacher's.
            clip_of: The clip of each body (L,).
            labels: (B,).
        """
        clips = len(labels)
        spikes: dict[str, Tensor] | None = {} if len(self.weights) > 1 else None
        logits = body_mean(self.network(bodies[0], spikes).float(), clip_of, clips)
        losses = {"cross_entropy": cross_entropy(logits, labels, self.config)}
        if self.distillation is not None:
            assert spikes is not None
            taught, feature = self.distillation(bodies[1], spikes)
            soft = body_mean(taught.float(), clip_of, clips)
            losses["soft_label"] = soft_label_loss(soft, logits, self.config.temperature)
            losses["feature"] = body_mean(feature[:, None], clip_of, clips)[:, 0]
        if self.config.rate_weight:
            assert spikes is not None
            rate = mean_firing_rate(spikes, self.config.rate_floor, self.fan_out)
            losses["rate"] = body_mean(rate[:, None], clip_of, clips)[:, 0]
        if "silence" in self.weights:
            assert spikes is not None
            below = silence(spikes, self.config.attention_floor)
            losses["silence"] = body_mean(below[:, None], clip_of, clips)[:, 0]
        return losses, logits


class TeacherObjective(nn.Module):
    """The teacher and its loss, the sum of its streams' cross-entropies: each stream's network
    learns alone."""

    kind = "teacher"
    distillation = None

    def __init__(self, teacher: Teacher, config: TrainConfig):
        super().__init__()
        self.network, self.config = teacher, config
        self.weights = {f"cross_entropy_{name}": 1.0 for name in teacher.by_stream}

    def forward(self, bodies: Sequence[Tensor], clip_of: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        by_stream, _ = self.network.look(bodies[0])
        logits = [body_mean(z.float(), clip_of, len(labels)) for z in by_stream]
        losses = [cross_entropy(z, labels, self.config) for z in logits]
        return dict(zip(self.weights, losses, strict=True)), torch.stack(logits).mean(0)


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Sum the weighted losses over the clips of a batch."""
    return torch.stack([losses[name].sum() * weight for name, weight in weights.items()]).sum()


def label_of(labels: Tensor) -> Tensor:
    """Return the classes (B,) of labels (B,); for mixed labels (B, classes), those with the largest share."""
    return labels if labels.dim() == 1 else labels.argmax(1)


def cross_entropy(logits: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing, reduction="none")
