"""The student: what its config fixes and refuses, the populations that it records, and that all of
it can learn."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.train.config import PRESETS
from mksgn.train.datasets import synthetic
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig, body_mean
from mksgn.train.transforms import body_inputs

CLASSES = synthetic.CLASSES
TINY = {
    "graph": "ntu-25",
    "classes": CLASSES,
    "frames": 4,
    "stream_channels": 2,
    "widths": (4, 8),
    "heads": 2,
    "kernel": 3,
}


def build(**changes):
    torch.manual_seed(0)
    return Student(StudentConfig(**{**TINY, **changes}))


@pytest.fixture(scope="module")
def inputs():
    """Six bodies of real clips at 4 frames."""
    clips = synthetic.read(6, "train").clips
    x, _ = body_inputs(clips, StreamNormaliser.fit(clips, 4))
    return torch.from_numpy(x[:6])


@pytest.fixture
def tiny(inputs):
    """In inference mode, with the gains and batch norms that the inputs give."""
    student = build()
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the one batch is all that it has_synaptic_state
    with torch.no_grad():
        student.train()(inputs)
    return student.eval()


# the config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "softmax"}, "attention: Input should be 'self', 'token' or 'none'; got 'softmax'"),
        ({"adjacency": "full"}, "adjacency: Input should be 'skeleton' or 'learned'; got 'full'"),
        ({"frames": 1}, "frames: Input should be greater than or equal to 2; got 1"),
        ({"stream_channels": 0}, "stream_channels: Input should be greater than or equal to 1; got 0"),
        ({"heads": 0}, "heads: Input should be greater than or equal to 1; got 0"),
        ({"kernel": 0}, "kernel: Input should be greater than or equal to 1; got 0"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1; got 0"),
        ({"kernel": 4}, "kernel: Input should be odd; got 4"),
        ({"widths": ()}, "widths: Tuple should have at least 1 item"),
        ({"classes": ("wave",)}, "classes: Tuple should have at least 2 items after validation, not 1"),
        ({"widths": (4, 6), "heads": 4}, "width 6 is not a multiple of heads 4; change one of them"),
        ({"attention": "token", "widths": (4, 6), "heads": 4}, "width 6 is not a multiple of heads 4"),
        ({"attention": "token", "tau": 4.0}, r"attention token: .*\(now tau 4 and 4 steps\); change these, or use"),
        ({"attention": "token", "steps": 9}, r"gates only at tau 2 and at most 8 steps \(now tau 2 and 9 steps\)"),
        ({"graph": "coco-17"}, "graph: no skeleton graph is named 'coco-17': use one of ntu-25, nw-ucla-20"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(BadInputError, match=message) as caught:
        StudentConfig(**{**TINY, **changes})
    assert "\n" not in str(caught.value)


def test_without_attention_any_width_will_do():
    assert StudentConfig(**{**TINY, "widths": (5, 7), "attention": "none"}).widths == (5, 7)


def test_a_config_survives_json():
    config = StudentConfig(**{**TINY, "attention": "none", "tau": 3.0})
    values = json.loads(json.dumps(config.to_dict()))
    assert StudentConfig(**values) == config
    assert set(values) == set(asdict(config))


def test_unknown_entries_of_a_config_are_named():
    with pytest.raises(BadInputError, match="student config: unknown entries colour, depth"):
        StudentConfig(**{**TINY, "depth": 6, "colour": "red"})


@pytest.mark.parametrize(
    ("widths", "frames", "strides", "left"),
    [
        ((64, 64, 128, 128, 256, 256), 16, (1, 1, 2, 1, 2, 1), (16, 16, 8, 8, 4, 4)),
        ((16, 32, 64), 7, (1, 2, 2), (7, 4, 2)),
        ((8,), 5, (1,), (5,)),
        ((8, 12, 24, 12), 9, (1, 1, 2, 1), (9, 9, 5, 5)),  # only where the width doubles
    ],
)
def test_strides_and_the_frames_that_leave_each_block(widths, frames, strides, left):
    config = StudentConfig(**{**TINY, "widths": widths, "frames": frames, "heads": 1})
    assert config.strides == strides
    assert config.block_frames == left
    assert config.joints == 25


def test_the_papers_width_and_depth_are_the_defaults():
    config = StudentConfig("nw-ucla-20", ("a", "b"))
    assert (config.steps, config.tau, config.heads, len(config.widths)) == (4, 2.0, 8, 6)
    assert config.widths == (64, 64, 128, 128, 256, 256)
    assert (config.attention, config.adjacency) == ("self", "skeleton")


# populations


def expected_populations(config, n_bodies):
    """Name → (S, L, *shape), in the order of the network."""
    s, v, frames = config.steps, config.joints, config.frames
    shapes = {
        "ssc": (s, n_bodies, 4 * config.stream_channels, frames, v),
        "smf": (s, n_bodies, config.widths[0], frames, v),
    }
    for i, (width, left) in enumerate(zip(config.widths, config.block_frames, strict=True), start=1):
        shapes[f"block{i}_sgc"] = (s, n_bodies, width, frames, v)
        if config.attention == "self":
            shapes[f"block{i}_qkv"] = (s, n_bodies, 3 * width, frames, v)
            shapes[f"block{i}_attention.m"] = (s, n_bodies, config.heads, frames, v, v)
            shapes[f"block{i}_attention.z"] = (s, n_bodies, width, frames, v)
        if config.attention == "token":
            shapes[f"block{i}_k"] = shapes[f"block{i}_q"] = (s, n_bodies, width, frames, v)
            shapes[f"block{i}_attention_m"] = (s, n_bodies, config.heads, frames, v)
            shapes[f"block{i}_attention_z"] = (s, n_bodies, width, frames, v)
        if config.attention != "none":
            shapes[f"block{i}_proj"] = (s, n_bodies, width, frames, v)
        shapes[f"block{i}_stc"] = (s, n_bodies, width, left, v)
        frames = left
    return shapes


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("demo", {}),
        ("demo", {"attention": "none", "frames": 5, "graph": "nw-ucla-20"}),
        ("small", {"frames": 2}),
        ("small", {"frames": 3, "adjacency": "learned", "steps": 2}),
        ("small", {"attention": "token", "frames": 3}),
    ],
)
def test_a_preset_records_every_population_in_its_shape(preset, changes):
    student = build(**{"kernel": 5, **PRESETS[preset]["student"], "graph": "ntu-25", **changes}).eval()
    config = student.config
    x = torch.randint(-127, 128, (1, 12, config.frames, config.joints)) / 32
    spikes = {}
    with torch.no_grad():
        logits = student(x, spikes)
    assert logits.shape == (1, 12)
    assert torch.isfinite(logits).all()
    expected = expected_populations(config, 1)
    assert {name: tuple(s.shape) for name, s in spikes.items()} == expected
    assert list(spikes) == list(expected)
    assert all(((s == 0) | (s == 1)).all() for s in spikes.values())


@pytest.mark.parametrize("attention", ["self", "token"])
def test_every_population_is_alive_on_the_first_training_batch(inputs, attention):
    spikes = {}
    build(attention=attention).train()(inputs, spikes)
    rates = {name: float(s.mean()) for name, s in spikes.items()}
    assert all(0 < rate < 0.9 for rate in rates.values()), rates


# the forward pass


def test_recording_changes_nothing(tiny, inputs):
    spikes = {}
    with torch.no_grad():
        recorded, plain = tiny(inputs, spikes), tiny(inputs)
    assert torch.equal(recorded, plain)
    assert torch.equal(plain, tiny(inputs))  # no state is left behind
    assert recorded.std(0).min() > 0  # bodies differ: the comparison says something


def test_logits_are_the_read_out_of_mean_spikes(tiny, inputs):
    """Mean and dense layer commute: the mean over steps of a read-out at each step is the same."""
    spikes = {}
    with torch.no_grad():
        logits = tiny(inputs, spikes)
    last = spikes["block2_stc"].numpy()
    rates = np.stack([last[:, n, c].mean() for n in range(6) for c in range(8)]).reshape(6, 8)
    weight, bias = tiny.fc.weight.detach().numpy(), tiny.fc.bias.detach().numpy()
    np.testing.assert_allclose(logits, rates @ weight.T + bias, atol=1e-6)
    by_step = np.stack([step.mean((2, 3)) @ weight.T + bias for step in last])
    np.testing.assert_allclose(logits, by_step.mean(0), atol=1e-6)


def test_bodies_do_not_see_each_other(tiny, inputs):
    with torch.no_grad():
        together = tiny(inputs)
        alone = torch.cat([tiny(body[None]) for body in inputs])
        reversed_ = tiny(inputs.flip(0)).flip(0)
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(reversed_, together, atol=1e-6, rtol=1e-6)


def test_blocks_are_wired_in_a_row_with_the_residual_from_their_input(tiny, inputs):
    """Each block again, from the spikes that the one before recorded."""
    spikes, again = {}, {}
    with torch.no_grad():
        tiny(inputs, spikes)
        y = tiny.smf(tiny.ssc(inputs, again.__setitem__), again.__setitem__)
        for i, (sgc, stc) in enumerate(zip(tiny.sgc, tiny.stc, strict=True), start=1):
            assert torch.equal(y, spikes[f"block{i - 1}_stc" if i > 1 else "smf"])
            y = stc(sgc(y, again.__setitem__), y, again.__setitem__)
    assert list(again) == list(spikes)
    assert all(torch.equal(again[name], spikes[name]) for name in spikes)


# learning


@pytest.mark.parametrize("attention", ["self", "token", "none"])
@pytest.mark.parametrize("adjacency", ["skeleton", "learned"])
def test_a_gradient_reaches_every_parameter(inputs, attention, adjacency):
    student = build(attention=attention, adjacency=adjacency).train()
    logits = student(inputs)
    torch.nn.functional.cross_entropy(logits, torch.arange(6) * 2).backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_without_attention_the_student_has_none():
    """v1's Base-SGN: no q, k, v and no projection, in parameters and populations."""
    names = set(build(attention="none").state_dict())
    assert not [name for name in names if any(part in name for part in ("qkv", "attention", "proj"))]
    assert names < set(build().state_dict())


def test_learned_adjacency_frees_every_pair_of_joints():
    free = {name: build(adjacency=name).sgc[0].graph.mask.sum().item() for name in ("skeleton", "learned")}
    assert free == {"skeleton": 25 + 2 * 24, "learned": 3 * 25 * 25}


def test_both_adjacencies_start_from_the_same_network(inputs):
    with torch.no_grad():
        assert torch.equal(build(adjacency="skeleton").eval()(inputs), build(adjacency="learned").eval()(inputs))


# persons


def test_body_mean():
    logits = torch.tensor([[1.0, 2.0], [3.0, 5.0], [4.0, 0.0], [0.0, 2.0]])
    out = body_mean(logits, torch.tensor([0, 1, 0, 2]), 3)
    assert out.tolist() == [[2.5, 1.0], [3.0, 5.0], [0.0, 2.0]]


def test_body_mean_is_differentiable_and_shares_the_gradient():
    logits = torch.zeros(3, 2, requires_grad=True)
    body_mean(logits, torch.tensor([0, 0, 1]), 2)[:, 0].sum().backward()
    assert logits.grad.tolist() == [[0.5, 0.0], [0.5, 0.0], [1.0, 0.0]]


# a network of rates


def test_a_rate_is_that_of_the_neuron_under_a_constant_current(tiny, inputs):
    """Each population's rates are the mean of its spikes, were the network run on the rates before it at every step."""
    rates, spikes = {}, {}
    with torch.no_grad():
        tiny.use_rates(True)
        tiny(inputs, rates)
        tiny.use_rates(False)
        tiny(inputs, spikes)
        for name, values in rates.items():
            assert values.shape == (1, *spikes[name].shape[1:])
            assert set((values * 4).unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
        held = rates["ssc"].expand(4, *rates["ssc"].shape[1:])
        seen = {}
        tiny.smf(held, seen.__setitem__)
        assert torch.equal(seen["smf"].mean(0, keepdim=True), rates["smf"])
        assert torch.equal(spikes["ssc"].mean(0, keepdim=True), rates["ssc"])  # the encoder's current is constant
    assert all(((s == 0) | (s == 1)).all() for s in spikes.values())


def test_every_parameter_learns_from_rates(tiny, inputs):
    tiny.train().use_rates(True)
    torch.nn.functional.cross_entropy(tiny(inputs), torch.arange(6) % 4).backward()
    still = [name for name, p in tiny.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not still
