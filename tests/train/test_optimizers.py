"""The optimiser's steps and the learning rate's course, beside the formulas in NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mksgn.train.config import TrainConfig
from mksgn.train.optimizers import build, share_of_rate, weight_groups
from mksgn.train.student import Student, StudentConfig
from tests.support.tiers import examples

few = settings(max_examples=examples(40), deadline=None, derandomize=True)


class Line(nn.Module):
    """y = a (B x) + c: a gain, synapses, an offset; and what is not to be learnt."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([1.5, -0.5], dtype=torch.float64))
        self.synapses = nn.Parameter(torch.tensor([[0.3, -0.2, 0.7], [1.1, 0.4, -0.6]], dtype=torch.float64))
        self.offset = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))
        self.fixed = nn.Parameter(torch.ones(2, 2, dtype=torch.float64), requires_grad=False)

    def loss(self, x):
        return ((self.gain * (self.synapses @ x) + self.offset) ** 2).sum()

    def values(self):
        return [p.detach().numpy().copy() for p in (self.synapses, self.gain, self.offset)]


def gradients(synapses, gain, offset, x):
    y = gain * (synapses @ x) + offset
    return [2 * np.outer(y * gain, x), 2 * y * (synapses @ x), np.array(2 * y.sum())]


INPUTS = np.random.default_rng(0).normal(0, 0.5, (30, 3))


def trained(config):
    """What the module is after each of 30 steps of the optimiser and its schedule."""
    line = Line()
    optimizer, schedule = build(line, config, len(INPUTS))
    course = []
    for x in INPUTS:
        optimizer.zero_grad(set_to_none=True)
        line.loss(torch.from_numpy(x)).backward()
        optimizer.step()
        schedule.step()
        course.append(line.values())
    assert torch.equal(line.fixed, torch.ones(2, 2, dtype=torch.float64))
    return course


def assert_course(found, expected):
    for now, then in zip(found, expected, strict=True):
        for a, b in zip(now, then, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def rate_of(config, step, steps):
    """The learning rate of a step, from 0: a rise over the warm-up, then half a cosine to a
    thousandth, or stairs."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "cosine":
        done = (step - warmup) / (steps - warmup)
        return config.learning_rate * (0.5 + 0.5 * math.cos(math.pi * done) + 0.001)
    rate = config.learning_rate
    for milestone in config.milestones:
        if step >= milestone * steps:
            rate /= 10
    return rate


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_sgd_is_nesterov_s_with_momentum_0_9_and_decays_synapses_only(schedule):
    config = TrainConfig(
        optimizer="sgd", schedule=schedule, learning_rate=0.05, weight_decay=0.2, milestones=(0.5, 0.8)
    )
    values, decay = Line().values(), [0.2, 0.0, 0.0]
    momentum, expected = [np.zeros_like(v) for v in values], []
    for step, x in enumerate(INPUTS):
        pull = [g + d * w for g, d, w in zip(gradients(*values, x), decay, values, strict=True)]
        momentum = [0.9 * m + g for m, g in zip(momentum, pull, strict=True)]
        rate = rate_of(config, step, len(INPUTS))
        values = [w - rate * (g + 0.9 * m) for w, g, m in zip(values, pull, momentum, strict=True)]
        expected.append(values)
    assert_course(trained(config), expected)


def test_adamw_decays_synapses_apart_from_the_gradient():
    config = TrainConfig(learning_rate=0.05, weight_decay=0.2)
    assert config.optimizer == "adamw"
    values, decay = Line().values(), [0.2, 0.0, 0.0]
    first, second, expected = [np.zeros_like(v) for v in values], [np.zeros_like(v) for v in values], []
    for step, x in enumerate(INPUTS):
        rate, pull = rate_of(config, step, len(INPUTS)), gradients(*values, x)
        first = [0.9 * m + 0.1 * g for m, g in zip(first, pull, strict=True)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, pull, strict=True)]
        values = [
            w * (1 - rate * d) - rate * m / (1 - 0.9 ** (step + 1)) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
            for w, m, v, d in zip(values, first, second, decay, strict=True)
        ]
        expected.append(values)
    assert_course(trained(config), expected)


@few
@given(
    schedule=st.sampled_from(["cosine", "step"]), steps=st.integers(2, 400),
    warmup=st.sampled_from([0.0, 0.02, 0.1, 0.5]),
    milestones=st.sampled_from([(), (0.6, 0.85), (0.25,), (0.9, 0.5, 0.7)]),
)  # fmt: skip
def test_the_schedules(schedule, steps, warmup, milestones):
    config = TrainConfig(schedule=schedule, warmup=warmup, milestones=milestones, learning_rate=0.3)
    share = share_of_rate(config, steps)
    for step in range(steps):
        assert share(step) * 0.3 == pytest.approx(rate_of(config, step, steps), rel=1e-12)


def test_the_course_of_a_cosine():
    """It rises to the full rate, never goes up again, is at the half midway, and ends at a
    thousandth of it."""
    share = share_of_rate(TrainConfig(warmup=0.1), 200)
    course = [share(step) for step in range(200)]
    np.testing.assert_allclose(course[:20], np.arange(1, 21) / 20)
    assert course[20:] == sorted(course[20:], reverse=True)
    assert course[110] == pytest.approx(0.5, abs=0.002)
    assert max(course) == pytest.approx(1.0, abs=0.002)
    assert course[-1] == pytest.approx(0.001, abs=2e-4)
    assert share(10_000) == pytest.approx(0.001)  # and goes no further


def test_the_course_of_stairs():
    """Ten epochs of ten steps: a tenth of the rate from the first step of the seventh, a hundredth
    from the middle of the ninth."""
    share = share_of_rate(TrainConfig(schedule="step", warmup=0.0), 100)
    course = [share(step) for step in range(100)]
    np.testing.assert_allclose(course, [1.0] * 60 + [0.1] * 25 + [0.01] * 15)


def test_a_warm_up_comes_before_a_stair():
    share = share_of_rate(TrainConfig(schedule="step", warmup=0.5, milestones=(0.25,)), 20)
    np.testing.assert_allclose([share(step) for step in range(12)], [*np.arange(1, 11) / 10, 0.1, 0.1])


def test_without_a_warm_up_the_first_step_is_at_the_full_rate():
    for schedule in ("cosine", "step"):
        assert share_of_rate(TrainConfig(schedule=schedule, warmup=0.0), 50)(0) == 1.0


def test_every_parameter_that_learns_is_in_one_group_and_no_other_is_in_any():
    torch.manual_seed(0)
    config = StudentConfig("nw-ucla-20", ("a", "b"), frames=4, stream_channels=2, widths=(4,), heads=2, fusion="mean")
    student = Student(config)
    student.fc.weight.requires_grad_(False)
    decayed, kept = weight_groups(student, 0.25)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.25, 0.0)
    names = {id(p): name for name, p in student.named_parameters()}
    found = [names[id(p)] for group in (decayed, kept) for p in group["params"]]
    assert len(found) == len(set(found))
    assert set(names.values()) - set(found) == {
        "fc.weight",
        "smf.g",
        "smf.b",
    }  # fusion by the mean learns neither g nor b
    vectors = {name for name, module in student.named_modules() if isinstance(module, nn.BatchNorm2d)}
    expected = {f"{name}.{part}" for name in vectors for part in ("weight", "bias")}
    expected |= {"fc.bias", "sgc.0.attention.log_gain_m", "sgc.0.attention.log_gain_z"}
    assert {names[id(p)] for p in kept["params"]} == expected


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_schedule_goes_on_where_it_was(optimizer):
    config = TrainConfig(optimizer=optimizer, learning_rate=0.02)

    def steps(line, optimizer, schedule, inputs):
        for x in inputs:
            optimizer.zero_grad(set_to_none=True)
            line.loss(torch.from_numpy(x)).backward()
            optimizer.step()
            schedule.step()

    line = Line()
    first = build(line, config, len(INPUTS))
    steps(line, *first, INPUTS[:12])
    resumed = build(line, config, len(INPUTS))
    for part, before in zip(resumed, first, strict=True):
        part.load_state_dict(before.state_dict())
    steps(line, *resumed, INPUTS[12:])
    assert_course([line.values()], trained(config)[-1:])
