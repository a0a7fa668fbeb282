"""The teacher beside the slow, obvious version of its equations in float64 NumPy, and what its
config and file refuse."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mksgn.common.errors import BadInputError
from mksgn.train.checkpoint import TrainedModel, TrainedTeacher, load, load_teacher, save, save_teacher
from mksgn.train.skeletons import adjacency_subsets, graph
from mksgn.train.streams import STREAMS, StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import GCN, GCNLayer, Teacher, TeacherConfig
from tests.support.tiers import examples

TINY = {
    "graph": "nw-ucla-20",
    "classes": ("sit", "walk", "throw"),
    "frames": 7,
    "widths": (2, 2, 2, 2, 3, 3, 3, 5, 5, 5),
    "kernel": 3,
}
JOINTS = 20

seeds = st.integers(0, 2**31 - 1)


# The equations


def convolve(x, weight, stride=1):
    """(L, C, T, V) and (O, C, k, 1) → (L, O, T', V): a sum over the frames that exist, zero for the
    others."""
    n_bodies, _, frames, joints = x.shape
    outputs, _, kernel, _ = weight.shape
    out = np.zeros((n_bodies, outputs, math.floor((frames - 1) / stride) + 1, joints))
    for t in range(out.shape[2]):
        for tap in range(kernel):
            source = t * stride + tap - (kernel - 1) // 2
            if 0 <= source < frames:
                out[:, :, t] += np.einsum("oc,lcv->lov", weight[:, :, tap, 0], x[:, :, source])
    return out


def graph_convolve(x, adjacency, weight):
    """sum_k A_k^T X W_k, one edge at a time: joint `source` is heard at joint `target`, A[k,
    source, target]."""
    n_bodies, _, frames, joints = x.shape
    out = np.zeros((n_bodies, weight.shape[0], frames, joints))
    for k, source, target in np.ndindex(*adjacency.shape):
        out[:, :, :, target] += adjacency[k, source, target] * np.einsum("oc,lct->lot", weight[:, :, k], x[..., source])
    return out


def normalise(x, bn):
    """Batch norm at inference: each channel of (L, C, T, V) by its running statistics."""
    mean, var, weight, bias = (
        array(values)[:, None, None] for values in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def relu(x):
    return np.where(x > 0, x, 0.0)


def residual(x, module, stride):
    """R: nothing, the input itself, or a 1 x 1 convolution of every `stride`-th frame,
    normalised."""
    if module is None:
        return 0.0
    if isinstance(module, nn.Identity):
        return x
    return normalise(convolve(x, array(module.conv.weight), stride), module.bn)


def layer_of(x, layer, stride):
    """ReLU( BN(Conv(Y)) + R_s(X) ) of Y = ReLU( BN(sum_k A_k^T X W_k) + R(X) )."""
    y = graph_convolve(x, array(layer.graph.adjacency), array(layer.graph.weight)[..., 0])
    y = relu(normalise(y, layer.graph.bn) + residual(x, layer.spatial_skip, 1))
    y = normalise(convolve(y, array(layer.conv.conv.weight), stride), layer.conv.bn)
    return relu(y + residual(x, layer.skip, stride))


# Help for the tests


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def scramble(module, seed):
    """In float64 and inference mode, nothing at its first value: norms that have seen something,
    graphs that have learnt."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.double().modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0.0, 0.3, generator=generator)
            part.running_var.uniform_(0.3, 2.0, generator=generator)
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, 0.2, 0.3, generator=generator)
        elif hasattr(part, "adjacency"):
            nn.init.normal_(part.adjacency, 0.0, 0.3, generator=generator)  # edges that the skeleton has not, too
    return module.eval()


def noise(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(seed=0, **changes):
    torch.manual_seed(seed)
    return scramble(Teacher(TeacherConfig(**{**TINY, **changes})), seed)


@pytest.fixture(scope="module")
def teacher():
    return build()


# The config


def test_the_defaults_are_the_widths_and_depth_of_the_paper_s_page():
    config = TeacherConfig("ntu-25", ("a", "b"))
    assert config.widths == (64,) * 4 + (128,) * 3 + (256,) * 3
    assert config.strides == (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)
    assert config.streams == ("joint", "bone", "joint_motion", "bone_motion")
    assert config.kernel % 2 == 1


@pytest.mark.parametrize(
    ("widths", "strides"),
    [
        ((4,) * 10, (1,) * 10),
        ((4, 5, 5, 8, 8, 8, 8, 8, 8, 9), (1, 2, 1, 2, 1, 1, 1, 1, 1, 2)),  # at each widening, doubled or not
        ((8, 8, 4, 4, 4, 4, 8, 8, 8, 8), (1, 1, 1, 1, 1, 1, 2, 1, 1, 1)),  # not where it narrows
    ],
)
def test_the_stride_is_2_at_each_widening(widths, strides):
    assert TeacherConfig(**{**TINY, "widths": widths}).strides == strides


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (4,) * 9}, "widths: Tuple should have at least 10 items after validation, not 9"),
        ({"widths": (4,) * 11}, "widths: Tuple should have at most 10 items after validation, not 11"),
        ({"widths": ()}, "widths: Tuple should have at least 10 items after validation, not 0"),
        ({"widths": 64}, "teacher config: widths: Input should be a valid tuple; got 64"),
        ({"widths": (4,) * 9 + (0,)}, r"widths\.9: Input should be greater than or equal to 1 .*; got 0"),
        (
            {"widths": (4,) * 9 + (2.5,)},
            r"widths\.9: Input should be a valid integer, got a number with a fractional part .*; got 2\.5",
        ),
        ({"kernel": 4}, "kernel: Input should be odd; got 4"),
        ({"kernel": 0}, "kernel: Input should be greater than or equal to 1; got 0"),
        ({"frames": 1}, "frames: Input should be greater than or equal to 2; got 1"),
        ({"frames": "many"}, "frames: Input should be a valid integer, .*; got 'many'"),
        ({"classes": ("sit",)}, "classes: Tuple should have at least 2 items after validation, not 1"),
        ({"streams": "joint"}, "streams: Input should be a valid tuple; got 'joint'"),
        ({"streams": ()}, "name at least one, and each at most once, of joint, bone, joint_motion, bone_motion"),
        ({"streams": ("joint", "velocity")}, r"streams \['joint', 'velocity'\]: name at least one, and each"),
        ({"streams": ("joint", "joint")}, r"streams \['joint', 'joint'\]: name at least one, and each"),
        ({"graph": "coco-17"}, "no skeleton graph is named 'coco-17': use one of ntu-25, nw-ucla-20"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(BadInputError, match=message) as caught:
        TeacherConfig(**{**TINY, **changes})
    assert "\n" not in str(caught.value)


def test_unknown_entries_of_a_config_are_named():
    """Those of a student too: a teacher has no attention."""
    with pytest.raises(BadInputError, match=r"teacher config: unknown entries attention, heads$"):
        TeacherConfig(**{**TINY, "heads": 2, "attention": "self"})


def test_a_config_survives_json():
    config = TeacherConfig(**{**TINY, "streams": ("bone", "joint")})
    again = TeacherConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.streams == ("joint", "bone")


# A layer


@settings(max_examples=examples(25), deadline=None, derandomize=True)
@given(
    seed=seeds, inputs=st.integers(1, 3), outputs=st.integers(1, 3), kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]), frames=st.integers(1, 7), joints=st.integers(1, 5), with_residual=st.booleans(),
)  # fmt: skip
def test_layer(seed, inputs, outputs, kernel, stride, frames, joints, with_residual):
    torch.manual_seed(seed)
    adjacency = torch.rand(3, joints, joints)
    layer = GCNLayer(inputs, outputs, adjacency, kernel=kernel, stride=stride, residual=with_residual)
    scramble(layer, seed)
    x = noise(seed, 2, inputs, frames, joints)
    expected = layer_of(array(x), layer, stride)
    np.testing.assert_allclose(array(layer(x)), expected, rtol=1e-9, atol=1e-11)
    assert expected.shape == (2, outputs, (frames - 1) // stride + 1, joints)
    kinds = [type(skip).__name__ for skip in (layer.spatial_skip, layer.skip)]
    if not with_residual:
        assert kinds == ["NoneType", "NoneType"]
    else:  # the identity wherever the shape allows it
        same = inputs == outputs
        assert kinds == ["Identity" if same else "ConvBN", "Identity" if same and stride == 1 else "ConvBN"]


def test_a_layer_hears_along_the_edges_only_from_source_to_target():
    """One edge, joint 0 to joint 2, in the last subset: what 0 says is heard at 2, and nowhere
    else."""
    adjacency = torch.zeros(3, 3, 3)
    adjacency[2, 0, 2] = 0.5
    layer = GCNLayer(1, 1, adjacency, kernel=1, stride=1, residual=False).double().eval()
    nn.init.ones_(layer.conv.conv.weight)
    nn.init.constant_(layer.graph.weight, 3.0)
    heard = layer(torch.tensor([[[[2.0, 0.0, 0.0]]]], dtype=torch.float64))
    np.testing.assert_allclose(array(heard)[0, 0, 0] * (1 + 1e-5), [0, 0, 3.0], rtol=1e-9)
    assert not layer(torch.tensor([[[[0.0, 1.0, 1.0]]]], dtype=torch.float64)).any()


# A stream's network


def test_the_graph_starts_from_the_skeleton_and_is_free_in_all_entries():
    torch.manual_seed(0)
    network = GCN(TeacherConfig(**TINY))
    start = torch.from_numpy(adjacency_subsets(graph("nw-ucla-20")))
    logits, _ = network(torch.randn(4, 3, 7, JOINTS))
    logits.square().sum().backward()
    assert len(network.layers) == 10
    for layer in network.layers:
        assert torch.equal(layer.graph.adjacency, start)
        assert layer.graph.adjacency.grad.ne(0).float().mean() > 0.9
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    synapses = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.bias is None for m in synapses)
    assert len(synapses) == 10 + 2 * 2  # and two residual paths at each widening


def test_the_first_norm_has_statistics_per_joint_and_coordinate():
    """In training each of the (coordinate, joint) pairs is standardised over the bodies and frames;
    then its mean is kept."""
    torch.manual_seed(0)
    network = GCN(TeacherConfig(**TINY)).double()
    network.input_bn.momentum = 1.0
    seen = []
    network.layers[0].register_forward_pre_hook(lambda _, x: seen.append(array(x[0])))
    x = noise(1, 3, 3, 7, JOINTS) * torch.rand(3, 1, JOINTS) * 3 + torch.randn(3, 1, JOINTS)
    with torch.no_grad():
        network(x)
        other = noise(2, 2, 3, 5, JOINTS)
        network.eval()(other)
    x, other = array(x), array(other)
    for c, v in np.ndindex(3, JOINTS):
        own = x[:, c, :, v]
        mean, deviation = own.mean(), own.std()
        np.testing.assert_allclose(
            seen[0][:, c, :, v], (own - mean) / np.sqrt(deviation**2 + 1e-5), rtol=1e-9, atol=1e-11
        )
        unbiased = own.var(ddof=1)
        expected = (other[:, c, :, v] - mean) / np.sqrt(unbiased + 1e-5)
        np.testing.assert_allclose(seen[1][:, c, :, v], expected, rtol=1e-9, atol=1e-11)


def test_the_first_norm_s_gains_are_each_one_pair_s_own():
    network = GCN(TeacherConfig(**TINY)).double().eval()
    seen = []
    network.layers[0].register_forward_pre_hook(lambda _, x: seen.append(array(x[0])))
    x = torch.ones(1, 3, 7, JOINTS, dtype=torch.float64)
    moved = set()
    with torch.no_grad():
        for i in range(3 * JOINTS):
            network.input_bn.bias.zero_()[i] = 5.0
            network(x)
            pairs = {(c, v) for c, t, v in zip(*np.nonzero(np.abs(seen.pop()[0] - 1) > 0.1), strict=True)}
            assert len(pairs) == 1
            moved |= pairs
    assert len(moved) == 3 * JOINTS


@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=seeds)
def test_network(seed):
    """All ten layers, and the logits of the mean over frames and joints."""
    torch.manual_seed(seed)
    config = TeacherConfig(**TINY)
    network = scramble(GCN(config), seed)
    nn.init.ones_(network.input_bn.weight)
    nn.init.zeros_(network.input_bn.bias)
    past = noise(seed, 2, 3, 7, JOINTS) * 2 + 1
    network.input_bn.train().momentum = 1.0
    with torch.no_grad():
        network(past)  # the first norm alone learns its statistics
    network.eval()
    x = noise(seed + 1, 2, 3, 7, JOINTS)
    logits, features = network(x)
    past = array(past)
    mean, var = past.mean((0, 2))[:, None], past.var((0, 2), ddof=1)[:, None]
    y = (array(x) - mean) / np.sqrt(var + 1e-5)
    assert len(features) == 10
    for layer, stride, width, found in zip(network.layers, config.strides, config.widths, features, strict=True):
        y = layer_of(y, layer, stride)
        np.testing.assert_allclose(array(found), y, rtol=1e-8, atol=1e-10)
        assert y.shape[1] == width
    assert [f.shape[2] for f in features] == [7] * 4 + [4] * 3 + [2] * 3
    assert network.layers[0].spatial_skip is None
    assert network.layers[0].skip is None  # the first layer has no residual
    expected = y.mean((2, 3)) @ array(network.fc.weight).T + array(network.fc.bias)
    np.testing.assert_allclose(array(logits), expected, rtol=1e-8, atol=1e-10)


# The teacher


def test_the_soft_label_is_the_mean_of_the_streams_logits(teacher):
    x = noise(0, 3, 12, 7, JOINTS)
    with torch.no_grad():
        logits, features = teacher.look(x)
        soft = teacher(x)
        alone = [teacher.by_stream[name](x[:, 3 * i : 3 * i + 3]) for i, name in enumerate(STREAMS)]
    assert logits.shape == (4, 3, 3)
    for i, (own, _) in enumerate(alone):
        np.testing.assert_allclose(array(logits[i]), array(own), rtol=1e-12)
    np.testing.assert_allclose(array(soft), np.mean([array(own) for own, _ in alone], axis=0), rtol=1e-9, atol=1e-12)
    assert np.ptp(array(logits), axis=0).min() > 1e-3  # four networks, each with weights of its own
    assert len(features) == 10
    for layer, width in enumerate(TINY["widths"]):
        assert features[layer].shape[1] == 4 * width
        side_by_side = np.concatenate([array(own[layer]) for _, own in alone], axis=1)
        np.testing.assert_allclose(array(features[layer]), side_by_side, rtol=1e-12)


@pytest.mark.parametrize("i", range(4))
def test_a_stream_sees_its_own_three_channels_only(teacher, i):
    x = noise(0, 2, 12, 7, JOINTS)
    with torch.no_grad():
        before, _ = teacher.look(x)
        for c in range(3 * i, 3 * i + 3):
            changed = x.clone()
            changed[:, c] += noise(c, 7, JOINTS)
            after, _ = teacher.look(changed)
            assert (after != before).flatten(1).any(1).tolist() == [stream == i for stream in range(4)]


def test_the_streams_are_named_and_in_their_order_whatever_order_is_given(teacher):
    assert list(teacher.by_stream) == list(STREAMS)
    two = build(streams=("bone_motion", "bone"))
    assert two.config.streams == tuple(two.by_stream) == ("bone", "bone_motion")
    two.load_state_dict(
        {name: value for name, value in teacher.state_dict().items() if name.split(".")[1] in two.config.streams}
    )
    x = noise(0, 2, 12, 7, JOINTS)
    with torch.no_grad():
        every, _ = teacher.look(x)
        logits, _ = two.look(torch.cat([x[:, 3:6], x[:, 9:]], dim=1))
    assert torch.equal(logits[0], every[1])
    assert torch.equal(logits[1], every[3])


# Its file


@pytest.fixture
def trained():
    torch.manual_seed(3)
    teacher = Teacher(TeacherConfig(**{**TINY, "streams": ("bone", "joint")}))
    with torch.no_grad():
        teacher.train()(torch.randn(4, 6, 7, JOINTS))  # norms that have seen something
    return TrainedTeacher(teacher.eval(), StreamNormaliser("nw-ucla-20", 7, {"joint": 0.01, "bone": 0.02}), {"seed": 3})


def test_a_teacher_comes_back_as_it_was(trained, tmp_path):
    save_teacher(trained, tmp_path / "teacher.pt")
    again = load_teacher(tmp_path / "teacher.pt")
    assert again.teacher.config == trained.teacher.config
    assert again.normaliser == trained.normaliser
    assert again.training == {"seed": 3}
    assert not any(module.training for module in again.teacher.modules())
    state = trained.teacher.state_dict()
    assert list(again.teacher.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in again.teacher.state_dict().items())
    x = torch.randn(2, 6, 7, JOINTS)
    with torch.no_grad():
        assert torch.equal(again.teacher(x), trained.teacher(x))


def test_a_student_s_file_is_no_teacher_s_and_the_other_way_round(trained, tmp_path):
    save_teacher(trained, tmp_path / "teacher.pt")
    student = Student(
        StudentConfig(
            "nw-ucla-20", ("a", "b"), frames=4, stream_channels=2, widths=(4,), heads=2, streams=("joint", "bone")
        )
    )
    save(TrainedModel(student, trained.normaliser), tmp_path / "model.pt")
    expected = {
        (load_teacher, "model.pt"): "schema is 'mksgn.model/1', expected 'mksgn.teacher/1'; "
        "use a teacher.pt written by mksgn-train --teacher",
        (
            load,
            "teacher.pt",
        ): "schema is 'mksgn.teacher/1', expected 'mksgn.model/1'; use a model.pt written by mksgn-train",
    }
    for (read, name), message in expected.items():
        with pytest.raises(BadInputError) as caught:
            read(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_units_of_other_streams_than_the_network_s_are_refused(trained, tmp_path):
    units = {"joint": 0.01, "joint_motion": 0.02}
    save_teacher(TrainedTeacher(trained.teacher, StreamNormaliser("nw-ucla-20", 7, units)), tmp_path / "teacher.pt")
    with pytest.raises(BadInputError, match=r"teacher\.pt: units of streams .*joint_motion.* for a network of .*bone"):
        load_teacher(tmp_path / "teacher.pt")
