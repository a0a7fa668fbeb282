"""The losses beside slow, obvious versions in float64 NumPy; what is trained by them, and what is
left alone."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mksgn.common.errors import BadInputError
from mksgn.train.checkpoint import TrainedTeacher
from mksgn.train.config import TrainConfig
from mksgn.train.datasets import synthetic
from mksgn.train.distill import (
    FTM,
    Distillation,
    StudentObjective,
    TeacherObjective,
    layer_pairs,
    mean_firing_rate,
    silence,
    soft_label_loss,
    weighted_sum,
)
from mksgn.train.loop import train
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.synapses import fan_out
from mksgn.train.teacher import Teacher, TeacherConfig
from tests.support.tiers import examples

TAU, STEPS = 2.0, 4
CLASSES = ("sit", "walk", "throw")
STUDENT = {
    "graph": "nw-ucla-20", "classes": CLASSES, "frames": 6, "stream_channels": 2, "widths": (4, 4, 8, 8, 16, 16),
    "heads": 2, "kernel": 3, "steps": STEPS,
}  # fmt: skip
TEACHER = {
    "graph": "nw-ucla-20",
    "classes": CLASSES,
    "frames": 9,
    "widths": (2,) * 4 + (3,) * 3 + (4,) * 3,
    "kernel": 3,
}
PAIRS = [(2, 4), (4, 7), (6, 10)]

CLIP_OF = torch.tensor([0, 1, 1, 2])  # the second clip has two bodies
LABELS = torch.tensor([2, 0, 1])

few = settings(max_examples=examples(25), deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)


# The equations


def interpolate(x, frames):
    """(L, C, T, V) → (L, C, frames, V): linear between the frames around, from the first to the
    last."""
    out = np.zeros((*x.shape[:2], frames, x.shape[3]))
    for t in range(frames):
        position = t * (x.shape[2] - 1) / (frames - 1) if frames > 1 else 0.0
        low = min(math.floor(position + 1e-9), x.shape[2] - 1)
        high = min(low + 1, x.shape[2] - 1)
        out[:, :, t] = x[:, :, low] + (position - low) * (x[:, :, high] - x[:, :, low])
    return out


def translated_current(x, ftm, frames):
    """BN(Conv1x1(interp_T(F))), the norm at inference."""
    weight, bn = array(ftm.current.conv.weight)[:, :, 0, 0], ftm.current.bn
    y = np.einsum("oc,lctv->lotv", weight, interpolate(x, frames))
    mean, var, gain, bias = (array(v)[:, None, None] for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias))
    return (y - mean) / np.sqrt(var + 1e-5) * gain + bias


def spikes_of(current, steps):
    """A membrane with tau 2, threshold 1 and hard reset under a constant current, from 0."""
    v, out = np.zeros_like(current), []
    for _ in range(steps):
        h = v + (current - v) / TAU
        assert np.abs(h - 1).min() > 1e-9, "a decision by rounding: choose another seed"
        out.append(np.where(h >= 1.0, 1.0, 0.0))
        v = np.where(h >= 1.0, 0.0, h)
    return np.stack(out)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def soft_label_of(teacher, student, temperature):
    """tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau)) of each row, 0 log 0 = 0."""
    out = np.zeros(len(teacher))
    for n, c in np.ndindex(*teacher.shape):
        p = softmax(teacher[n] / temperature)[c]
        z = student[n] / temperature
        log_q = z[c] - z.max() - math.log(sum(math.exp(each - z.max()) for each in z))
        if p > 0:
            out[n] += temperature**2 * p * (math.log(p) - log_q)
    return out


def cross_entropy_of(logits, label, smoothing):
    """Against a target of 1 - smoothing on the label, and the rest on all classes alike."""
    target = np.full(len(logits), smoothing / len(logits))
    target[label] += 1 - smoothing
    return -float(np.sum(target * np.log(softmax(logits))))


def features_of(student, teacher, translate):
    """L_feat of each body: mean over pairs of the mean squared distance of firing rates over the
    steps."""
    out = np.zeros(student[0].shape[1])
    for s, f, ftm in zip(student, teacher, translate, strict=True):
        rates = spikes_of(translated_current(f, ftm, s.shape[3]), len(s)).mean(0)
        for n in range(len(out)):
            out[n] += np.mean((s.mean(0)[n] - rates[n]) ** 2) / len(student)
    return out


def over_bodies(values):
    """Of bodies → of clips: the mean over the bodies of each."""
    return np.stack([values[CLIP_OF.numpy() == clip].mean(0) for clip in range(len(LABELS))])


# Help for the tests


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def noise(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spikes(seed, *shape, rate=0.3):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < rate).double()


def scramble(module, seed):
    """In float64 and inference mode, with norms that have seen something, and that fire."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.double().modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0.0, 0.3, generator=generator)
            part.running_var.uniform_(0.3, 2.0, generator=generator)
            nn.init.uniform_(part.weight, 0.8, 1.6, generator=generator)
            nn.init.normal_(part.bias, 0.4, 0.3, generator=generator)
    return module.eval()


def build_teacher(**changes):
    torch.manual_seed(1)
    return scramble(Teacher(TeacherConfig(**{**TEACHER, **changes})), 1)


def build(config=None, *, distilling=True, teacher=None, dtype=torch.float64, **changes):
    """An objective in inference mode, and bodies for the student and the teacher. Training is in
    float32 only."""
    torch.manual_seed(0)
    student = Student(StudentConfig(**{**STUDENT, **changes}))
    teacher = (teacher or build_teacher()).to(dtype)
    distillation = Distillation(student.config, teacher) if distilling else None
    objective = scramble(StudentObjective(student, config or TrainConfig(), distillation), 0).to(dtype)
    frames, streams = teacher.config.frames, len(teacher.config.streams)
    bodies = [noise(0, 4, 3 * len(student.config.streams), 6, 20), noise(1, 4, 3 * streams, frames, 20)]
    return objective, [x.to(dtype) for x in bodies[: 2 if distilling else 1]]


def assert_loss(found, expected, name):
    """Logits are made float32 before their losses; the others are float64 throughout."""
    rtol, atol = (1e-9, 1e-12) if name in ("feature", "rate") else (2e-5, 2e-6)
    np.testing.assert_allclose(array(found), expected, rtol=rtol, atol=atol, err_msg=name)


def state_of(module):
    return copy.deepcopy(module.state_dict())


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# Pairs


def test_the_pairs_of_six_blocks_and_ten_layers():
    assert layer_pairs(6, 10) == PAIRS


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 7, 8, 10, 12])
def test_the_pairs_of_other_depths(blocks):
    """At most three, none twice, deeper ones with deeper ones, both inside their network, and the
    last with the last."""
    pairs = layer_pairs(blocks, 10)
    assert len(pairs) == min(3, blocks)
    assert pairs[-1] == (blocks, 10)
    student, teacher = zip(*pairs, strict=True)
    assert list(student) == sorted(set(student))
    assert list(teacher) == sorted(set(teacher))
    assert min(student) >= 1
    assert min(teacher) >= 1


# The feature translation module


@few
@given(
    seed=seeds, teacher_channels=st.integers(1, 3), student_channels=st.integers(1, 3), before=st.integers(1, 9),
    frames=st.integers(1, 9), steps=st.integers(1, 5),
)  # fmt: skip
def test_ftm(seed, teacher_channels, student_channels, before, frames, steps):
    torch.manual_seed(seed)
    ftm = scramble(FTM(teacher_channels, student_channels, frames, steps, TAU), seed)
    ftm.current.bn.bias.data += 0.8
    x = noise(seed, 2, teacher_channels, before, 3)
    expected = spikes_of(translated_current(array(x), ftm, frames), steps)
    np.testing.assert_array_equal(array(ftm(x)), expected)


def test_ftm_keeps_the_first_and_the_last_frame_and_halves_the_way_between():
    ftm = FTM(1, 1, 5, 1, TAU).double().eval()
    nn.init.ones_(ftm.current.conv.weight)
    seen = []
    ftm.current.register_forward_hook(lambda module, x, y: seen.append(array(y).flatten() * math.sqrt(1 + 1e-5)))
    ftm(torch.tensor([1.0, 3.0, -1.0], dtype=torch.float64).view(1, 1, 3, 1))
    np.testing.assert_allclose(seen[0], [1, 2, 3, 1, -1], rtol=1e-9)


def test_ftm_s_synapses_learn_through_its_neurons():
    torch.manual_seed(0)
    ftm = FTM(3, 2, 4, STEPS, TAU)
    ftm(torch.randn(2, 3, 6, 5)).mean().backward()
    assert ftm.current.conv.weight.grad.abs().sum() > 0
    assert ftm.current.bn.weight.grad.abs().sum() > 0
    assert ftm.current.conv.bias is None


# The soft labels


@few
@given(
    seed=seeds, clips=st.integers(1, 4), classes=st.integers(2, 6), temperature=st.sampled_from([0.5, 1.0, 4.0, 20.0])
)
def test_soft_labels_and_their_gradient(seed, clips, classes, temperature):
    teacher, student = noise(seed, clips, classes) * 5, (noise(seed + 1, clips, classes) * 5).requires_grad_()
    loss = soft_label_loss(teacher, student, temperature)
    np.testing.assert_allclose(
        array(loss), soft_label_of(array(teacher), array(student), temperature), rtol=1e-9, atol=1e-12
    )
    loss.sum().backward()
    push = temperature * (softmax(array(student) / temperature) - softmax(array(teacher) / temperature))
    np.testing.assert_allclose(array(student.grad), push, rtol=1e-9, atol=1e-12)


def test_soft_labels_cost_nothing_where_the_student_agrees_and_are_finite_where_it_is_sure_of_another():
    z = noise(0, 3, 5)
    np.testing.assert_allclose(array(soft_label_loss(z, z + 7.0, 4.0)), 0.0, atol=1e-12)
    sure = torch.tensor([[4000.0, 0.0, -4000.0]], dtype=torch.float64)
    np.testing.assert_allclose(array(soft_label_loss(sure, sure.flip(1), 4.0)), [16 * 2000.0], rtol=1e-9)
    assert soft_label_loss(sure.float(), sure.flip(1).float(), 4.0).isfinite().all()


def test_soft_labels_tell_teacher_from_student():
    """KL is not symmetric: missing what the teacher thinks possible costs more than thinking more
    possible."""
    sharp, flat = torch.tensor([[6.0, 0.0, 0.0]]), torch.zeros(1, 3)
    missed, spread = float(soft_label_loss(flat, sharp, 1.0)), float(soft_label_loss(sharp, flat, 1.0))
    p = math.exp(6) / (math.exp(6) + 2)
    q = (1 - p) / 2
    assert spread == pytest.approx(math.log(3) + p * math.log(p) + 2 * q * math.log(q), rel=1e-5)
    assert missed == pytest.approx(-math.log(3) - (math.log(p) + 2 * math.log(q)) / 3, rel=1e-5)


# The firing rate


def test_the_mean_firing_rate_is_over_all_neurons_and_steps():
    """A large population counts for more than a small one; and each spike pulls alike."""
    record = {
        "a": spikes(0, 4, 2, 3, 2, 5, rate=0.6),
        "b.m": spikes(1, 4, 2, 2, 3, 5, 5, rate=0.1),
        "c": spikes(2, 4, 2, 7),
    }
    for population in record.values():
        population.requires_grad_()
    rates = mean_firing_rate(record)
    total, neurons = [0.0, 0.0], 0
    for population in record.values():
        neurons += array(population)[0, 0].size
        for index in np.ndindex(*population.shape):
            total[index[1]] += float(population[index])
    np.testing.assert_allclose(array(rates), np.array(total) / (4 * neurons), rtol=1e-12)
    rates[1].backward()
    for population in record.values():
        assert not population.grad[:, 0].any()
        np.testing.assert_allclose(array(population.grad[:, 1]), 1 / (4 * neurons), rtol=1e-12)


def test_a_rate_by_synapses_is_the_share_of_the_synaptic_operations_that_could_be():
    record = {"a": spikes(0, 4, 2, 3, 2, 5, rate=0.6), "c": spikes(2, 4, 2, 7)}
    operations = 12.0 * array(record["a"]).sum((0, 2, 3, 4)) + 2.5 * array(record["c"]).sum((0, 2))
    most = 12.0 * 4 * 30 + 2.5 * 4 * 7
    np.testing.assert_allclose(array(mean_firing_rate(record, weights={"a": 12.0, "c": 2.5})), operations / most)


def test_a_student_is_penalised_by_its_synapses_where_the_config_says_so():
    student = Student(StudentConfig(**STUDENT))
    x = torch.randn(3, 12, 6, 20, generator=torch.Generator().manual_seed(0))
    losses = {}
    for cost in ("neurons", "synapses"):
        objective = StudentObjective(student, TrainConfig(rate_weight=1.0, rate_cost=cost)).eval()
        losses[cost], _ = objective([x], torch.arange(3), torch.zeros(3, dtype=torch.long))
    record = {}
    student(x, record)
    by_synapse = mean_firing_rate(record, weights=fan_out(student))
    torch.testing.assert_close(losses["synapses"]["rate"], by_synapse)
    torch.testing.assert_close(losses["neurons"]["rate"], mean_firing_rate(record))
    assert not torch.equal(losses["neurons"]["rate"], losses["synapses"]["rate"])


@pytest.mark.parametrize(("m", "z"), [("a_attention.m", "a_attention.z"), ("a_attention_m", "a_attention_z")])
def test_silence_is_how_far_attention_fires_below_its_floor(m, z):
    record = {m: torch.zeros(2, 2, 5, 10), z: torch.zeros(2, 2, 10), "a_sgc": torch.zeros(2, 2, 4)}
    record[m][0, 0, 0, 0] = 1  # 1 of the first body's 100 decisions
    record[z][:, 0, 0] = 1  # 2 of 20
    below = silence(record, least=0.02)
    torch.testing.assert_close(below, torch.tensor([0.25, 1.0]))  # half below and not below; both silent


@pytest.mark.slow
def test_a_floor_keeps_attention_firing():
    """Against a strong penalty on all spikes, a few steps of the optimiser leave more of them in attention."""
    x, labels = torch.randn(6, 12, 6, 20, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    rates = {}
    for floor in (0.0, 0.2):
        torch.manual_seed(0)
        student = Student(StudentConfig(**STUDENT))
        objective = StudentObjective(student, TrainConfig(rate_weight=20.0, attention_floor=floor)).train()
        optimizer = torch.optim.Adam(student.parameters(), 1e-2)
        for _ in range(15):
            losses, _ = objective([x], torch.arange(6), labels)
            optimizer.zero_grad()
            weighted_sum(losses, objective.weights).backward()
            optimizer.step()
        record = {}
        student(x, record)
        rates[floor] = min(float(s.mean()) for name, s in record.items() if name.endswith((".m", ".z")))
    assert rates[0.0] < rates[0.2]


def test_the_mean_firing_rate_of_a_student_counts_each_population_once():
    objective, bodies = build(TrainConfig(rate_weight=2.0), distilling=False)
    record = {}
    objective.network(bodies[0], record)
    assert len(record) == 2 + 6 * 6  # ssc, smf; sgc, qkv, m, z, proj, stc in each block
    counted = np.array([sum(float(s[:, n].sum()) for s in record.values()) for n in range(4)])
    counted /= sum(s[:, 0].numel() for s in record.values())
    assert counted.min() > 0.02
    losses, _ = objective(bodies, CLIP_OF, LABELS)
    np.testing.assert_allclose(array(losses["rate"]), over_bodies(counted), rtol=1e-9)


# The student's losses


CONFIG = TrainConfig(soft_label_weight=0.7, feature_weight=1.3, temperature=3.0, rate_weight=0.5, label_smoothing=0.2)


def expected_losses(objective, bodies, config):
    """Each loss from the two networks' outputs alone."""
    record = {}
    with torch.no_grad():
        logits = over_bodies(array(objective.network(bodies[0], record)))
        teacher = objective.distillation.teacher
        label = over_bodies(array(teacher(bodies[1])))
        _, features = teacher.look(bodies[1])
    pairs = [(array(record[f"block{block}_stc"]), array(features[layer - 1])) for block, layer in PAIRS]
    feature = features_of(*zip(*pairs, strict=True), objective.distillation.translate)
    counts = [(array(s).sum((0, *range(2, s.dim()))), s[:, 0].numel()) for s in record.values()]
    rate = sum(count for count, _ in counts) / sum(size for _, size in counts)
    smoothing = config.label_smoothing
    return logits, {
        "cross_entropy": [cross_entropy_of(z, y, smoothing) for z, y in zip(logits, LABELS.numpy(), strict=True)],
        "soft_label": soft_label_of(label, logits, config.temperature),
        "feature": over_bodies(feature),
        "rate": over_bodies(rate),
    }


def test_the_student_s_losses_are_those_of_the_equations_per_clip():
    objective, bodies = build(CONFIG)
    losses, logits = objective(bodies, CLIP_OF, LABELS)
    expected_logits, expected = expected_losses(objective, bodies, CONFIG)
    np.testing.assert_allclose(array(logits), expected_logits, rtol=2e-5, atol=2e-6)
    assert list(losses) == list(expected)
    for name, values in expected.items():
        assert losses[name].shape == (3,)
        assert_loss(losses[name], values, name)
        assert np.ptp(values) > 0  # each clip has its own


def test_a_teacher_of_one_stream_and_more_frames_teaches_too():
    objective, bodies = build(CONFIG, teacher=build_teacher(streams=("bone",), frames=12), streams=("joint", "bone"))
    assert [x.shape[1:3] for x in bodies] == [(6, 6), (3, 12)]
    losses, _ = objective(bodies, CLIP_OF, LABELS)
    for name, values in expected_losses(objective, bodies, CONFIG)[1].items():
        assert_loss(losses[name], values, name)


@pytest.mark.parametrize("split", [[(0,), (1,), (2,)], [(0, 2), (1,)]])
def test_a_batch_costs_what_its_shares_cost(split):
    """Or processes with shares of different sizes would learn something else than one with the
    whole batch."""
    objective, bodies = build(CONFIG)
    whole, whole_logits = objective(bodies, CLIP_OF, LABELS)
    for clips in split:
        chosen = torch.tensor([int(clip) in clips for clip in CLIP_OF])
        clip_of = torch.tensor([clips.index(int(clip)) for clip in CLIP_OF[chosen]])
        share, logits = objective([x[chosen] for x in bodies], clip_of, LABELS[list(clips)])
        np.testing.assert_allclose(array(logits), array(whole_logits)[list(clips)], rtol=1e-9, atol=1e-12)
        for name, values in share.items():
            np.testing.assert_allclose(
                array(values), array(whole[name])[list(clips)], rtol=1e-9, atol=1e-12, err_msg=name
            )


def test_a_second_body_that_repeats_the_first_changes_nothing():
    objective, bodies = build(CONFIG)
    alone, _ = objective([x[[0, 1, 3]] for x in bodies], torch.arange(3), LABELS)
    twice, _ = objective([x[[0, 1, 1, 3]] for x in bodies], CLIP_OF, LABELS)
    for name, values in twice.items():
        np.testing.assert_allclose(array(values), array(alone[name]), rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("distilling", "rate", "names"),
    [
        (False, 0.0, ["cross_entropy"]),
        (False, 0.1, ["cross_entropy", "rate"]),
        (True, 0.0, ["cross_entropy", "soft_label", "feature"]),
        (True, 0.1, ["cross_entropy", "soft_label", "feature", "rate"]),
    ],
)
def test_losses_are_named_where_they_are_used(distilling, rate, names):
    objective, bodies = build(TrainConfig(rate_weight=rate), distilling=distilling, dtype=torch.float32)
    losses, _ = objective(bodies, CLIP_OF, LABELS)
    assert list(losses) == names
    assert list(objective.train()(bodies, CLIP_OF, LABELS)[0]) == names


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_the_weights_are_those_of_the_config(weight):
    """A loss is told as it is; what it counts for is beside it."""
    config = TrainConfig(soft_label_weight=weight, feature_weight=weight / 2, rate_weight=weight * 2)
    objective, bodies = build(config)
    losses, _ = objective(bodies, CLIP_OF, LABELS)
    unit, _ = build(TrainConfig(rate_weight=1.0))[0](bodies, CLIP_OF, LABELS)
    expected = {"cross_entropy": 1.0, "soft_label": weight, "feature": weight / 2, "rate": weight * 2}
    assert objective.weights == {name: value for name, value in expected.items() if name != "rate" or value}
    assert list(losses) == list(objective.weights)
    for name, values in losses.items():
        assert torch.equal(values, unit[name])


def test_the_gradients_of_the_losses_reach_the_student_and_the_translation():
    objective, bodies = build(CONFIG, dtype=torch.float32)
    losses, _ = objective.train()(bodies, CLIP_OF, LABELS)
    reached = {}
    for name, values in losses.items():
        objective.zero_grad(set_to_none=True)
        values.sum().backward(retain_graph=True)
        reached[name] = {
            n.split(".")[0] for n, p in objective.named_parameters() if p.grad is not None and p.grad.any()
        }
    assert reached == {
        "cross_entropy": {"network"}, "soft_label": {"network"}, "feature": {"network", "distillation"},
        "rate": {"network"},
    }  # fmt: skip
    objective.zero_grad(set_to_none=True)
    losses["feature"].sum().backward(retain_graph=True)
    assert objective.network.ssc.conv.weight.grad.any()  # through all six blocks
    assert objective.network.fc.weight.grad is None  # the read-out comes after all that is compared


# What is trained


@pytest.mark.slow
def test_the_teacher_is_neither_trained_nor_kept_nor_put_into_training_mode():
    teacher = build_teacher().float()
    before = state_of(teacher)
    objective, bodies = build(CONFIG, teacher=teacher, dtype=torch.float32)
    assert objective.distillation.teacher is teacher
    objective.train()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1, weight_decay=0.1)
    ours = state_of(objective)
    for _ in range(2):
        losses, _ = objective(bodies, CLIP_OF, LABELS)
        optimizer.zero_grad()
        sum(values.sum() for values in losses.values()).backward()
        optimizer.step()
    assert same(state_of(teacher), before)  # norms' statistics and counts of batches too
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    theirs = {id(p) for p in teacher.parameters()}
    assert not theirs & {id(p) for p in objective.parameters()}
    kept = {id(value) for value in objective.state_dict(keep_vars=True).values()}
    assert not (theirs | {id(b) for b in teacher.buffers()}) & kept
    assert not same(state_of(objective), ours)


def test_a_teacher_that_comes_in_training_mode_is_frozen():
    teacher = build_teacher().train()
    objective, _ = build(teacher=teacher)
    assert objective.training is False
    objective.train()
    assert not any(module.training for module in teacher.modules())


def test_the_translation_learns_and_is_kept():
    objective, bodies = build(CONFIG, dtype=torch.float32)
    translate = {n: p for n, p in objective.named_parameters() if n.startswith("distillation.")}
    assert len(translate) == 3 * 3  # synapses, gain and bias for each pair
    assert set(translate) <= set(objective.state_dict())
    # side by side the four streams' channels, to the student's
    assert [tuple(p.shape[:2]) for n, p in translate.items() if p.dim() == 4] == [(4, 8), (8, 12), (16, 16)]
    before = {name: p.detach().clone() for name, p in translate.items()}
    losses, _ = objective.train()(bodies, CLIP_OF, LABELS)
    losses["feature"].mean().backward()
    torch.optim.SGD(objective.parameters(), lr=1.0).step()
    assert all((p != before[name]).any() for name, p in translate.items())
    fresh, _ = build(CONFIG, dtype=torch.float32)
    fresh.load_state_dict(objective.state_dict())
    again, _ = fresh.eval()(bodies, CLIP_OF, LABELS)
    for name, values in objective.eval()(bodies, CLIP_OF, LABELS)[0].items():
        assert torch.equal(values, again[name])


def test_the_student_alone_is_the_same_student():
    """Its state has the names of a student without a teacher: nothing of the distillation is in
    model.pt."""
    objective, bodies = build(CONFIG)
    alone, _ = build(distilling=False)
    assert list(objective.network.state_dict()) == list(alone.network.state_dict())
    assert torch.equal(objective(bodies, CLIP_OF, LABELS)[1], alone(bodies[:1], CLIP_OF, LABELS)[1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"graph": "ntu-25"}, "ntu-25"),
        ({"classes": ("sit", "walk")}, "class"),
        ({"classes": ("walk", "sit", "throw")}, "class"),  # the same, in another order: other logits
    ],
)
def test_a_teacher_of_another_skeleton_or_other_classes_is_refused(changes, said):
    with pytest.raises(BadInputError, match=said) as caught:
        Distillation(StudentConfig(**STUDENT), build_teacher(**changes))
    assert "\n" not in str(caught.value)


# The teacher's losses


def test_each_stream_of_a_teacher_learns_from_its_own_loss_alone():
    teacher = build_teacher()
    objective = TeacherObjective(teacher, TrainConfig(label_smoothing=0.2)).double().eval()
    x = noise(1, 4, 12, 9, 20)
    losses, logits = objective([x], CLIP_OF, LABELS)
    with torch.no_grad():
        streams, _ = teacher.look(x)
    assert list(losses) == [f"cross_entropy_{name}" for name in ("joint", "bone", "joint_motion", "bone_motion")]
    for own, values in zip(streams, losses.values(), strict=True):
        rows = zip(over_bodies(array(own)), LABELS.numpy(), strict=True)
        np.testing.assert_allclose(array(values), [cross_entropy_of(z, y, 0.2) for z, y in rows], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(array(logits), over_bodies(array(streams).mean(0)), rtol=2e-5, atol=2e-6)
    own = {}
    for name, values in losses.items():
        objective.zero_grad(set_to_none=True)
        values.sum().backward(retain_graph=True)
        touched = {n.split(".")[2] for n, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
        assert touched == {name.removeprefix("cross_entropy_")}
        own |= {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
    objective.zero_grad(set_to_none=True)
    sum(values.sum() for values in losses.values()).backward()
    for name, parameter in objective.named_parameters():
        torch.testing.assert_close(parameter.grad, own[name], rtol=1e-9, atol=1e-12)


def test_a_teacher_s_batch_costs_what_its_shares_cost():
    objective = TeacherObjective(build_teacher(), TrainConfig()).double().eval()
    x = noise(1, 4, 12, 9, 20)
    whole, _ = objective([x], CLIP_OF, LABELS)
    first, _ = objective([x[:1]], CLIP_OF[:1], LABELS[:1])
    rest, _ = objective([x[1:]], CLIP_OF[1:] - 1, LABELS[1:])
    for name, values in whole.items():
        np.testing.assert_allclose(array(values), array(torch.cat([first[name], rest[name]])), rtol=1e-9, err_msg=name)


# In the loop


CLIPS = synthetic.read(8, "train")
QUICK = TrainConfig(
    student={"frames": 4, "stream_channels": 2, "widths": [4, 8], "heads": 2, "kernel": 3},
    epochs=1, batch=4, clip_gradient=1e6, soft_label_weight=0.0, feature_weight=0.0,
)  # fmt: skip


def trained_teacher(factor=1.0):
    """For the synthetic clips; each of its steps is `factor` of the student's."""
    torch.manual_seed(1)
    values = {**TEACHER, "graph": "ntu-25", "classes": CLIPS.classes, "frames": 4}
    units = {name: factor * unit for name, unit in StreamNormaliser.fit(CLIPS.clips, 4).units.items()}
    return TrainedTeacher(Teacher(TeacherConfig(**values)).eval(), StreamNormaliser("ntu-25", 4, units))


def test_both_networks_see_the_same_windows_each_in_its_own_units(tmp_path, monkeypatch):
    seen, forward = [], StudentObjective.forward

    def watched(self, bodies, clip_of, labels):
        seen.append(bodies)
        return forward(self, bodies, clip_of, labels)

    monkeypatch.setattr(StudentObjective, "forward", watched)
    train(QUICK, CLIPS, CLIPS, tmp_path, teacher=trained_teacher(2.0))
    assert len(seen) == 2
    for student, teacher in seen:
        steps, theirs = 32 * array(student), 32 * array(teacher)
        inside = np.abs(steps) < 127
        assert inside.mean() > 0.9
        assert np.abs(theirs[inside] - steps[inside] / 2).max() <= 0.75 + 1e-3  # each is rounded for itself
        assert np.abs(theirs).max() > 20


def test_a_loss_of_weight_0_is_told_and_teaches_nothing(tmp_path):
    told = []
    silent = train(QUICK, CLIPS, CLIPS, tmp_path / "a", teacher=trained_teacher(), report=told.append)
    alone = train(QUICK, CLIPS, CLIPS, tmp_path / "b")
    heard = train(replace(QUICK, soft_label_weight=1.0), CLIPS, CLIPS, tmp_path / "c", teacher=trained_teacher())
    assert told[0]["loss"] == told[0]["losses"]["cross_entropy"]
    assert min(told[0]["losses"].values()) > 0
    states = [model.student.state_dict() for model in (silent, alone, heard)]
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value)
    assert any((states[2][name] != value).any() for name, value in states[1].items())
