"""The procedural clips: what they are, and that neither time nor space alone is enough to tell them
apart."""

import zlib

import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import open_source, synthetic
from mksgn.train.datasets.clips import LazyClips
from mksgn.train.skeletons import bone_pairs, graph

CLASSES = synthetic.CLASSES
REVERSED = {"sit down", "stand up", "raise arms", "lower arms"}  # pairs that only the order of their frames tells apart


@pytest.fixture(scope="module")
def train():
    return synthetic.read(600, "train")


@pytest.fixture(scope="module")
def held_out():
    return synthetic.read(360, "test")


def test_clips_are_plausible(train):
    assert len(CLASSES) >= 10
    for clip in train.clips:
        bodies, frames, joints, axes = clip.joints.shape
        assert bodies in (1, 2)
        assert 32 <= frames <= 64
        assert (joints, axes) == (graph(clip.graph).size, 3)
        assert clip.joints.dtype == np.float32
        assert np.isfinite(clip.joints).all()
        assert 2.0 < clip.joints[0, :, 0, 2].min() <= clip.joints[0, :, 0, 2].max() < 4.6  # metres from the sensor
        assert np.abs(clip.joints[..., :2]).max() < 3.5
        assert (clip.joints[..., 20, 1] > clip.joints[..., 15, 1]).all()  # shoulders above feet: y is up
    share = np.mean([len(clip.joints) == 2 for clip in train.clips])
    assert 0.04 < share < 0.2


def test_labels_are_balanced(train):
    assert len(train) == 600
    assert (train.source, train.split, train.part, train.graph) == ("synthetic", "synthetic", "train", "ntu-25")
    np.testing.assert_array_equal(train.labels, np.arange(600) % len(CLASSES))


def test_a_clip_depends_on_seed_part_and_index_alone():
    here = synthetic.read(24, "test", 3)
    longer = synthetic.read(30, "test", 3)
    for index in reversed(range(24)):
        np.testing.assert_array_equal(here.clips[index].joints, longer.clips[index].joints)
        np.testing.assert_array_equal(here.clips[index].joints, synthetic.clip(index, "test", 3).joints)


def test_parts_seeds_and_indices_never_share_a_stream():
    clips = [synthetic.clip(i, part, seed) for part in synthetic.PARTS for seed in (0, 1, 2) for i in (0, 1, 2, 12)]
    assert len({clip.joints[0, 0].tobytes() for clip in clips}) == len(clips)
    assert len({clip.name for clip in clips}) == len(clips)


def test_bones_keep_their_length():
    """Exactly before the sensor's noise, and up to that noise in a clip."""
    parents = bone_pairs(graph("ntu-25"))
    for label, action in enumerate(CLASSES):
        body = synthetic.animate(action, 40, np.random.default_rng(label))
        lengths = np.linalg.norm(body - body[:, parents], axis=-1)
        np.testing.assert_allclose(lengths, lengths[:1].repeat(40, axis=0), atol=1e-9)
        joints = synthetic.clip(label, "train").joints
        spread = np.linalg.norm(joints - joints[:, :, parents], axis=-1).std(axis=1)
        assert 0 < spread.max() < 2.5 * synthetic.NOISE[1]


@pytest.mark.parametrize("action", CLASSES)
def test_feet_stand_on_the_floor(action):
    """The lowest joint is on the floor, but for the flight of a jump; and the standing foot does
    not slide away."""
    body = synthetic.animate(action, 60, np.random.default_rng(7))
    lowest = body[..., 1].min(axis=1)
    if action == "jump":
        assert lowest.max() > 0.1
        assert np.median(lowest) < 1e-9
    else:
        np.testing.assert_allclose(lowest, 0, atol=1e-9)
    slide = np.linalg.norm(np.diff(body[:, [14, 18]], axis=0), axis=-1).min(axis=1)
    assert slide[lowest[1:] < 1e-9].max() < 0.05


@pytest.mark.parametrize(("forward", "backward"), [("sit down", "stand up"), ("raise arms", "lower arms")])
def test_reversed_pairs_are_the_same_frames_in_the_other_order(forward, backward):
    there = synthetic.animate(forward, 50, np.random.default_rng(1))
    back = synthetic.animate(backward, 50, np.random.default_rng(1))
    np.testing.assert_array_equal(there[::-1], back)


def test_both_sides_act(train):
    """Waving hands are left ones and right ones, near half and half."""
    waves = [clip.joints[0].mean(axis=0) for clip in train.clips if CLASSES[clip.label] == "wave hand"]
    left = np.mean([pose[7, 1] > pose[11, 1] for pose in waves])
    assert 0.25 < left < 0.75


def test_bad_arguments_are_refused():
    with pytest.raises(BadInputError, match="no part 'val'"):
        synthetic.read(3, "val")
    with pytest.raises(BadInputError, match="no part 'val'"):
        synthetic.clip(0, "val")
    with pytest.raises(BadInputError, match="at least 1"):
        synthetic.read(0, "train")
    with pytest.raises(BadInputError, match="clip -1 of seed 0"):
        synthetic.clip(-1, "train")
    with pytest.raises(BadInputError, match="clip 0 of seed -2"):
        open_source("synthetic", limit=1, seed=-2)


def test_clips_of_a_large_set_are_made_when_they_are_asked_for():
    few, many = synthetic.read(3, "test", seed=4), synthetic.read(synthetic.HELD + 1, "test", seed=4)
    assert isinstance(few.clips, list)
    assert isinstance(many.clips, LazyClips)
    assert list(many.labels) == [index % len(synthetic.CLASSES) for index in range(synthetic.HELD + 1)]
    for made, held in zip(many.clips[:3], few.clips, strict=True):
        assert (made.name, made.label) == (held.name, held.label)
        np.testing.assert_array_equal(made.joints, held.joints)


def test_open_source_gives_as_many_as_asked():
    assert len(open_source("synthetic", limit=13, seed=4)) == 13
    assert len(open_source("synthetic", split="synthetic")) == synthetic.DEFAULT_LIMIT["test"] == 200
    assert open_source("synthetic", part="train", limit=2, seed=4).part == "train"
    assert synthetic.DEFAULT_LIMIT["train"] == 1000


# How hard the classes are. One classifier, kernel ridge regression with a Gaussian kernel, learns
# from features of the actor that keep the order of frames, the joints apart, or both. Mean recall
# with 600 training and 360 test clips: both 1.0; frames without order 0.8, the middle frame 0.7,
# the first 0.6; the root's path 0.4, the mean joint's 0.9, joints shuffled 0.8. Means say little:
# what counts is which classes are lost.


def resample(values, frames=16):
    """(T, ...) → (frames, ...), linearly."""
    at = np.linspace(0, len(values) - 1, frames)
    low = np.floor(at).astype(int)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - share) + values[np.minimum(low + 1, len(values) - 1)] * share


def unordered(body):
    """Per joint and axis, over the frames: mean, deviation and quantiles; relative to the root. No
    order survives."""
    centred = body - body[:, :1]
    quantiles = np.quantile(centred, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1], axis=0)
    return np.concatenate([[centred.mean(axis=0), centred.std(axis=0)], quantiles])


def middle_frame(body):
    middle = body[len(body) // 2]
    return middle - middle[0]


def first_frame(body):
    return body[0] - body[0, 0]


def ordered(body):
    """All joints at 16 times, relative to the root's first place."""
    return resample(body - body[0, :1])


def root_path(body):
    return resample(body[:, 0] - body[0, 0])


def mean_path(body):
    return resample((body - body[0]).mean(axis=1))


def shuffled_joints(body):
    """Everything that `ordered` has, but which joint is which: another permutation for each clip,
    from its content."""
    order = np.random.default_rng(zlib.crc32(body.tobytes())).permutation(body.shape[1])
    return ordered(body)[:, order]


def both(body):
    return np.concatenate([ordered(body), unordered(body)])


def recalls(features, train, test, damping=0.03):
    """Class name → share of its test clips that are recognised."""
    x, z = (np.array([features(clip.joints[0].astype(float)).ravel() for clip in part.clips]) for part in (train, test))
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    x, z = (x - mean) / spread, (z - mean) / spread

    def squared_distances(a, b):
        return (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T

    among = squared_distances(x, x)
    width = np.median(among)
    weights = np.linalg.solve(np.exp(-among / width) + damping * np.eye(len(x)), np.eye(len(CLASSES))[train.labels])
    guess = (np.exp(-squared_distances(z, x) / width) @ weights).argmax(axis=1)
    return {name: float(np.mean(guess[test.labels == label] == label)) for label, name in enumerate(CLASSES)}


def test_space_and_time_together_suffice(train, held_out):
    found = recalls(both, train, held_out)
    assert min(found.values()) >= 0.9, found


@pytest.mark.parametrize("features", [unordered, middle_frame])
def test_without_time_the_reversed_pairs_are_a_guess(train, held_out, features):
    found = recalls(features, train, held_out)
    failed = {name for name, share in found.items() if share < 0.7}
    assert failed >= REVERSED, found
    assert np.mean([found[name] for name in REVERSED]) < 0.6, found  # a coin gives 0.5


def test_the_first_frame_does_not_tell_what_follows(train, held_out):
    """It gives away who begins seated or with arms raised; whoever begins by standing is lost."""
    found = recalls(first_frame, train, held_out)
    failed = {name for name, share in found.items() if share < 0.7}
    assert failed >= {"sit down", "raise arms", "bow", "squat", "jump", "throw"}, found


@pytest.mark.parametrize(
    ("features", "fails"),
    [
        (root_path, {"raise arms", "lower arms", "wave hand", "swing foot", "clap", "walk in place"}),
        (mean_path, {"swing foot"}),
        (shuffled_joints, {"swing foot", "walk in place"}),
    ],
)
def test_without_space_the_moving_limb_is_a_guess(train, held_out, features, fails):
    found = recalls(features, train, held_out)
    failed = {name for name, share in found.items() if share < 0.7}
    assert failed >= fails, found
