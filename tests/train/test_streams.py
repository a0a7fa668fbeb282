"""From joints to the network's input: resampling, the four streams by name, and the normaliser's
lattice."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import synthetic
from mksgn.train.datasets.clips import Clip
from mksgn.train.skeletons import GRAPHS, bone_pairs, graph
from mksgn.train.streams import (
    INTEGER_LIMIT,
    LATTICE_EXPONENT,
    PERCENTILE,
    STREAMS,
    StreamNormaliser,
    check_joints,
    four_streams,
    resize,
)

FRAMES = 8
LATTICE = 2.0**LATTICE_EXPONENT


@pytest.fixture(scope="module")
def clips():
    return synthetic.read(12, "train").clips


@pytest.fixture(scope="module")
def normaliser(clips):
    return StreamNormaliser.fit(clips, FRAMES)


def make_clip(joints, name="ntu-25"):
    return Clip("clip-7", 0, np.asarray(joints), name)


def random_joints(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# resize


def test_resize_keeps_the_ends_and_interpolates_between_neighbours():
    joints = random_joints(2, 5, 3, 3)
    out = resize(joints, 9)
    assert out.shape == (2, 9, 3, 3)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[:, ::2], joints)
    np.testing.assert_allclose(out[:, 1::2], (joints[:, 1:] + joints[:, :-1]) / 2, atol=1e-6)


def test_resize_is_linear_in_time():
    """A joint that moves steadily does so at any number of frames."""
    joints = np.linspace(0.0, 1.0, 7, dtype=np.float32)[None, :, None, None] * np.array([1.0, -2.0, 3.0], np.float32)
    for frames in (2, 3, 10, 64):
        expected = np.linspace(0.0, 1.0, frames)[None, :, None, None] * np.array([1.0, -2.0, 3.0])
        np.testing.assert_allclose(resize(joints, frames), expected, atol=1e-6)


@pytest.mark.parametrize("frames", [2, 5, 16])
def test_resize_to_its_own_length_changes_nothing_and_one_frame_stands_still(frames):
    joints = random_joints(1, frames, 2, 3)
    np.testing.assert_array_equal(resize(joints, frames), joints)
    np.testing.assert_array_equal(resize(joints[:, :1], frames), np.repeat(joints[:, :1], frames, axis=1))


# the four streams


@pytest.mark.parametrize("name", GRAPHS)
def test_four_streams_by_name(name):
    """Joint, bone, and the motion of each, in loops over bodies, frames and joints."""
    skeleton, parents = graph(name), bone_pairs(graph(name))
    joints = random_joints(2, 2, 4, skeleton.size, 3)
    out = four_streams(torch.from_numpy(joints), parents, skeleton.centre).numpy()
    assert out.shape == (2, 2, 4, 3, 4, skeleton.size)
    assert STREAMS == ("joint", "bone", "joint_motion", "bone_motion")
    streams = {stream: out[:, :, i] for i, stream in enumerate(STREAMS)}
    for b, m, t, v in np.ndindex(2, 2, 4, skeleton.size):
        at = joints[b, m, t]
        origin = joints[b, 0, 0, 1]  # joint 1 of the first body's first frame, for every body and frame
        np.testing.assert_allclose(streams["joint"][b, m, :, t, v], at[v] - origin, atol=1e-6)
        np.testing.assert_allclose(streams["bone"][b, m, :, t, v], at[v] - at[parents[v]], atol=1e-6)
        after = joints[b, m, min(t + 1, 3)]  # the last frame does not move
        np.testing.assert_allclose(streams["joint_motion"][b, m, :, t, v], after[v] - at[v], atol=1e-6)
        change = (after[v] - after[parents[v]]) - (at[v] - at[parents[v]])
        np.testing.assert_allclose(streams["bone_motion"][b, m, :, t, v], change, atol=2e-6)


def test_bodies_keep_their_distance_and_the_room_does_not_matter(clips, normaliser):
    """Centring is by the first body: two that stand apart still do, wherever the sensor was."""
    clip = next(c for c in clips if len(c.joints) == 2)
    here = normaliser.clip(clip)
    away = normaliser.clip(replace(clip, joints=clip.joints + np.float32([1.0, -0.5, 2.0])))
    assert np.abs(here - away).max() <= LATTICE  # rounding of the sums may move a value by one step
    assert (here != away).mean() < 1e-3
    assert not here[0, :3, 0, 1].any()
    assert here[1, :3, 0, 1].any()


# the normaliser


def test_input_lies_on_the_lattice(clips, normaliser):
    inputs = np.concatenate([normaliser.clip(clip) for clip in clips])
    assert inputs.shape == (sum(len(clip.joints) for clip in clips), 12, FRAMES, 25)
    assert inputs.dtype == np.float32
    integers = inputs / LATTICE
    np.testing.assert_array_equal(integers, np.round(integers))
    assert np.abs(integers).max() == INTEGER_LIMIT == 127
    assert (integers < 0).any()


def test_values_are_rounded_and_held_at_the_limit():
    """Units of 1 m (a frame): the input is the integer itself, ties to even, in [-127, 127], times
    1/32."""
    normaliser = StreamNormaliser("nw-ucla-20", 2, dict.fromkeys(STREAMS, 1.0))
    joints = torch.zeros(1, 1, 2, 20, 3)
    metres = torch.tensor([0.4, 0.6, 1.5, 2.5, -2.6, 126.4, 127.4, 500.0, -126.6, -500.0])
    joints[0, 0, :, 5:15, 2] = metres
    out = normaliser(joints)[0, 0].view(4, 3, 2, 20) / LATTICE
    assert out[0, 2, 0, 5:15].tolist() == [0, 1, 2, 2, -3, 126, 127, 127, -127, -127]
    assert not out[:, :2].any()
    assert not out[2:].any()  # nothing moves


def test_each_stream_has_its_own_unit():
    units = {"joint": 0.5, "bone": 0.25, "joint_motion": 0.125, "bone_motion": 1.0}
    joints = torch.zeros(1, 1, 2, 20, 3)
    joints[0, 0, 1, 19, 0] = 2.0  # a foot, child of joint 18, moves by 2 m in the second frame
    out = StreamNormaliser("nw-ucla-20", 2, units)(joints)[0, 0].view(4, 3, 2, 20) / LATTICE
    assert out[:, 0, :, 19].tolist() == [[0, 4], [0, 8], [16, 0], [2, 0]]
    assert out.count_nonzero() == 4


def test_units_leave_only_the_rarest_values_saturated(clips, normaliser):
    """127 steps reach the percentile of |value| over the training clips, stream by stream."""
    parents = bone_pairs(graph("ntu-25"))
    found = [four_streams(torch.from_numpy(resize(c.joints, FRAMES)[None]), parents, 1).abs() for c in clips]
    for i, stream in enumerate(STREAMS):
        values = np.concatenate([streams[:, :, i].numpy().ravel() for streams in found])
        assert normaliser.units[stream] * 127 == pytest.approx(np.percentile(values, PERCENTILE), rel=1e-5)


def test_clips_that_never_move_still_have_a_unit():
    normaliser = StreamNormaliser.fit([make_clip(np.ones((1, 3, 25, 3), np.float32))], 4)
    assert all(unit > 0 for unit in normaliser.units.values())
    assert not normaliser.clip(make_clip(np.ones((1, 3, 25, 3), np.float32))).any()


def test_a_normaliser_survives_json(clips, normaliser):
    values = json.loads(
        json.dumps(normaliser.to_dict(), sort_keys=True)
    )  # sorted keys: streams are named, not positional
    assert tuple(values["units"]) != STREAMS
    again = StreamNormaliser.from_dict(values)
    assert again == normaliser
    np.testing.assert_array_equal(again.clip(clips[0]), normaliser.clip(clips[0]))


def test_the_lattice_is_part_of_the_normaliser(clips, normaliser):
    finer = StreamNormaliser.from_dict({**normaliser.to_dict(), "lattice_exponent": LATTICE_EXPONENT - 1})
    np.testing.assert_array_equal(finer.clip(clips[0]) * 2, normaliser.clip(clips[0]))


@pytest.mark.parametrize(
    "units",
    [
        {"joint": 1.0, "joint_motion": 1.0, "bone": 1.0, "bone_motion": 1.0},  # not in the order of the channels
        dict.fromkeys(STREAMS, 0.0),
        dict.fromkeys(STREAMS, float("nan")),
        {**dict.fromkeys(STREAMS, 1.0), "bone": -1.0},
    ],
)
def test_units_that_are_no_units_are_refused(units):
    with pytest.raises(
        BadInputError, match="positive number for each stream, in the order joint, bone, joint_motion, bone_motion"
    ):
        StreamNormaliser("ntu-25", 4, units)


@pytest.mark.parametrize("names", [(), ("joint", "joint"), ("joint", "velocity")], ids=["none", "twice", "unknown"])
def test_streams_that_are_no_streams_are_refused(clips, names):
    with pytest.raises(BadInputError, match="name at least one, and each at most once, of joint, bone"):
        StreamNormaliser.fit(clips, 4, names)


def test_some_streams_are_those_of_all_four(clips, normaliser):
    """In the order of STREAMS, whatever order they are named in."""
    some = StreamNormaliser.fit(clips, normaliser.frames, ("joint_motion", "joint"))
    assert some.streams == ("joint", "joint_motion")
    whole = normaliser.clip(clips[0])
    np.testing.assert_array_equal(some.clip(clips[0]), np.concatenate([whole[:, 0:3], whole[:, 6:9]], axis=1))
    assert StreamNormaliser.from_dict(json.loads(json.dumps(some.to_dict(), sort_keys=True))) == some


# clips that do not fit


def test_a_clip_of_another_graph_is_refused(normaliser):
    with pytest.raises(BadInputError, match=r"clip-7: joints of graph nw-ucla-20.*trained on ntu-25"):
        normaliser.clip(make_clip(np.zeros((1, 4, 20, 3)), "nw-ucla-20"))


@pytest.mark.parametrize(("name", "count", "expected"), [("ntu-25", 20, 25), ("nw-ucla-20", 25, 20)])
def test_a_wrong_number_of_joints_is_refused(name, count, expected):
    with pytest.raises(BadInputError, match=rf"clip-7: {count} joints, but {name} has {expected}; name the graph"):
        check_joints(make_clip(np.zeros((1, 4, count, 3)), name))


@pytest.mark.parametrize("shape", [(4, 25, 3), (1, 4, 25, 2), (1, 0, 25, 3), (0, 4, 25, 3), (1, 1, 4, 25, 3)])
def test_joints_of_another_shape_are_refused(shape):
    with pytest.raises(BadInputError, match=r"clip-7: joints have shape .*expected \(bodies, frames, joints, 3\)"):
        check_joints(make_clip(np.zeros(shape)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_joint_that_is_not_finite_is_named(normaliser, value):
    joints = np.zeros((2, 5, 25, 3), np.float32)
    joints[1, 3, 17, 2] = joints[1, 4, 0, 0] = value
    for refuse in (check_joints, normaliser.clip, lambda clip: StreamNormaliser.fit([clip], FRAMES)):
        with pytest.raises(BadInputError, match=r"clip-7: body 1, frame 3, joint 17 is not finite") as caught:
            refuse(make_clip(joints))
        assert "\n" not in str(caught.value)


def test_joints_of_another_number_type_are_read(normaliser):
    joints = np.arange(2 * 25 * 3).reshape(1, 2, 25, 3) % 7
    assert check_joints(make_clip(joints)).dtype == np.float32
    np.testing.assert_array_equal(
        normaliser.clip(make_clip(joints.astype(np.float64))), normaliser.clip(make_clip(joints))
    )
