"""Augmentation: windows, rotation and scale; and bodies, one per body that is there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.train.config import TrainConfig
from mksgn.train.datasets import synthetic
from mksgn.train.datasets.clips import Clip
from mksgn.train.skeletons import bone_pairs, graph
from mksgn.train.streams import StreamNormaliser, centred, resize
from mksgn.train.transforms import (
    STORED_FRAMES,
    TrainingClips,
    body_inputs,
    mirror,
    mix,
    rotate,
    sample_mixture,
    sample_positions,
    sample_rotations,
    sample_windows,
    window,
)

STILL = TrainConfig(rotate_degrees=0.0, scale=(1.0, 1.0), crop=1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cut(joints, frames, least, generator):
    """A random window of each clip (B, M, 64, V, 3)."""
    length, start = sample_windows(len(joints), joints.shape[2], least, generator)
    return window(joints, start[:, None] + length[:, None] * torch.linspace(0, 1, frames))


def rotated_and_scaled(joints, config, generator):
    return rotate(joints, sample_rotations(len(joints), config, generator))


def clocks(count):
    """Clips whose every coordinate is the time: (count, 1, 64, 2, 3) with values 0 to 63."""
    return torch.arange(64.0).view(1, 1, 64, 1, 1).expand(count, 1, 64, 2, 3)


@pytest.fixture(scope="module")
def clips():
    """Twelve of the synthetic clips, of which at least one has two bodies and most have one."""
    found = synthetic.read(12, "train").clips
    assert {len(clip.joints) for clip in found} == {1, 2}
    return found


@pytest.fixture(scope="module")
def normaliser(clips):
    return StreamNormaliser.fit(clips, 8)


# windows


def test_random_frames_rise_inside_the_window_and_differ_between_clips():
    config = TrainConfig(frame_sampling="random")
    position = sample_positions(200, 16, config, seeded())
    assert position.shape == (200, 16)
    assert (position.diff(dim=1) >= 0).all()
    assert 0 <= position.min() < 0.02 < 0.98 < position.max() <= 1
    assert len(position.unique(dim=0)) == 200
    # uniform: the k-th of 16 sorted numbers has mean (k + 1) / 17
    assert (position.mean(0) - torch.arange(1, 17) / 17).abs().max() < 0.04


def test_even_frames_reach_both_ends_of_the_window():
    torch.testing.assert_close(sample_positions(3, 5, STILL, seeded())[0], torch.tensor([0, 0.25, 0.5, 0.75, 1]))


@pytest.mark.parametrize("least", [0.1, 0.5, 0.7, 1.0])
def test_a_window_stays_inside_the_clip_and_covers_its_least_share(least):
    out = cut(clocks(400), 16, least, seeded())[:, 0, :, 0, 0]
    first, last = out[:, 0], out[:, -1]
    assert first.min() >= 0
    assert last.max() <= 63 + 1e-4
    assert (last - first).min() >= least * 63 - 1e-3
    steps = out.diff(dim=1)
    assert (steps > 0).all()  # forwards
    torch.testing.assert_close(steps, steps.mean(1, keepdim=True).expand_as(steps), atol=1e-4, rtol=0)  # and evenly
    if least < 1.0:
        share = (last - first) / 63
        assert share.min() < least + 0.05 * (1 - least)
        assert share.max() > 1 - 0.05 * (1 - least)
        assert first.max() > 0.4 * (1 - least) * 63  # not only from the start


def test_a_full_window_is_the_clip():
    joints = torch.randn(3, 2, 64, 5, 3, generator=seeded())
    torch.testing.assert_close(cut(joints, 64, 1.0, seeded()), joints, atol=1e-4, rtol=0)
    expected = np.stack([resize(clip, 16) for clip in joints.numpy()])
    torch.testing.assert_close(cut(joints, 16, 1.0, seeded()), torch.from_numpy(expected), atol=1e-4, rtol=0)


def test_each_clip_has_a_window_of_its_own_and_all_its_bodies_share_it():
    joints = clocks(8).expand(8, 2, 64, 2, 3)
    out = cut(joints, 16, 0.5, seeded())
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[..., 0, :], out[..., 1, :])
    assert len({float(start) for start in out[:, 0, 0, 0, 0]}) == 8


# rotation and scale


def test_no_rotation_and_no_scale_change_nothing():
    joints = torch.randn(4, 2, 3, 5, 3, generator=seeded())
    assert torch.equal(rotated_and_scaled(joints, STILL, seeded()), joints)


def test_rotation_keeps_lengths_angles_and_hands():
    joints = torch.randn(6, 2, 3, 5, 3, generator=seeded(), dtype=torch.float32)
    rotated = rotated_and_scaled(joints, replace(STILL, rotate_degrees=60.0), seeded(1))
    products = [torch.einsum("bmtvi,bmtwi->bmtvw", x, x) for x in (joints, rotated)]
    torch.testing.assert_close(*products, atol=1e-4, rtol=1e-4)
    hands = [torch.linalg.det(x[..., :3, :]) for x in (joints, rotated)]
    torch.testing.assert_close(*hands, atol=1e-3, rtol=1e-3)
    assert ((rotated - joints).abs().amax((1, 2, 3, 4)) > 0.05).all()


def test_one_rotation_per_clip_for_all_frames_and_bodies():
    joints = torch.randn(4, 1, 1, 5, 3, generator=seeded()).expand(4, 2, 3, 5, 3)
    rotated = rotated_and_scaled(joints, replace(STILL, rotate_degrees=45.0), seeded())
    torch.testing.assert_close(rotated, rotated[:, :1, :1].expand_as(rotated))


def test_rotation_stays_within_its_degrees():
    """About the vertical axis by the degrees asked for, about x by a third of them; both ways, near
    both ends."""
    up_and_ahead = (
        torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
        .view(1, 1, 1, 3, 3)
        .expand(500, -1, -1, -1, -1)
    )
    rotated = rotated_and_scaled(up_and_ahead, replace(STILL, rotate_degrees=30.0), seeded())[:, 0, 0]
    pitch = torch.atan2(rotated[:, 0, 2], rotated[:, 0, 1]).rad2deg()  # of what was upright
    # undo the rotation about x, then read the one about y
    c, s = pitch.deg2rad().cos(), pitch.deg2rad().sin()
    ahead_z = -s * rotated[:, 1, 1] + c * rotated[:, 1, 2]
    yaw = torch.atan2(rotated[:, 1, 0], ahead_z).rad2deg()
    assert rotated[:, 0, 0].abs().max() < 1e-6  # upright things lean forward or back, never sideways
    for angle, limit in ((yaw, 30.0), (pitch, 10.0)):
        assert angle.abs().max() <= limit + 1e-3
        assert angle.max() > 0.95 * limit
        assert angle.min() < -0.95 * limit


def test_scale_is_one_number_per_clip_inside_its_range():
    joints = torch.randn(300, 2, 2, 3, 3, generator=seeded())
    scaled = rotated_and_scaled(joints, replace(STILL, scale=(0.8, 1.25)), seeded())
    factor = scaled / joints
    torch.testing.assert_close(factor, factor[:, :1, :1, :1, :1].expand_as(factor), atol=1e-4, rtol=1e-4)
    factor = factor[:, 0, 0, 0, 0]
    assert 0.8 - 1e-4 <= factor.min() < 0.82
    assert 1.23 < factor.max() <= 1.25 + 1e-4


def test_tilt_is_a_third_of_the_rotation_or_its_own_entry():
    """The image of the vertical axis leaves it by the tilt alone: the rotation about it comes first."""
    for config, most in [
        (TrainConfig(rotate_degrees=60), 20.0),
        (TrainConfig(rotate_degrees=60, tilt_degrees=50), 50.0),
    ]:
        matrices = sample_rotations(2000, replace(config, scale=(1.0, 1.0)), seeded())
        tilt = torch.rad2deg(torch.acos(matrices[:, 1, 1].clamp(-1, 1)))
        assert 0.95 * most < tilt.max() <= most + 0.1


@pytest.mark.parametrize("name", ["ntu-25", "nw-ucla-20"])
def test_mirroring_exchanges_the_sides_and_keeps_all_lengths(name):
    joints = torch.randn(2, 1, 4, graph(name).size, 3, generator=seeded())
    mirrored = mirror(joints, torch.tensor([True, False]), name)
    assert torch.equal(mirrored[1], joints[1])
    left, right = (graph(name).joints.index(f"{side} elbow") for side in ("left", "right"))
    assert torch.equal(mirrored[0, :, :, left], joints[0, :, :, right] * torch.tensor([-1.0, 1.0, 1.0]))
    parents = bone_pairs(graph(name))
    lengths = [sorted((x - x[:, :, parents]).norm(dim=-1).flatten().tolist()) for x in (joints[0], mirrored[0])]
    assert lengths[0] == pytest.approx(lengths[1])  # a bone becomes its partner
    assert torch.equal(mirror(mirrored, torch.tensor([True, False]), name), joints)


def test_a_share_of_the_clips_is_mirrored(clips, normaliser):
    data, index = TrainingClips(clips[:1]), torch.zeros(400, dtype=torch.long)
    config = replace(STILL, mirror=0.25)
    (x,), _, _ = data.batch(index, [normaliser], config, seeded())
    (still,), _, _ = data.batch(index[:1], [normaliser], STILL, seeded())
    same = (x.view(400, -1) == still.view(1, -1)).all(1).float().mean()
    assert 0.68 < same < 0.82


def test_a_rotated_clip_has_the_bones_of_the_clip(clips):
    joints = torch.from_numpy(resize(clips[0].joints, 8)[None])
    rotated = rotated_and_scaled(joints, replace(STILL, rotate_degrees=60.0), seeded())
    parents = bone_pairs(graph("ntu-25"))
    lengths = [(x - x[..., parents, :]).norm(dim=-1) for x in (joints, rotated)]
    torch.testing.assert_close(*lengths, atol=1e-5, rtol=1e-5)


# batches and bodies


def test_training_clips_know_which_bodies_are_there(clips):
    data = TrainingClips(clips)
    assert len(data) == 12
    assert data.joints.shape == (12, 2, STORED_FRAMES, 25, 3)
    assert data.present.sum(1).tolist() == [len(clip.joints) for clip in clips]
    assert data.present[:, 0].all()
    assert data.labels.tolist() == [clip.label for clip in clips]
    for n, clip in enumerate(clips):
        np.testing.assert_array_equal(data.joints[n, : len(clip.joints)].numpy(), resize(clip.joints, STORED_FRAMES))


def test_absent_bodies_get_no_input(clips, normaliser):
    data = TrainingClips(clips)
    two = next(n for n, clip in enumerate(clips) if len(clip.joints) == 2)
    one = next(n for n, clip in enumerate(clips) if len(clip.joints) == 1)
    (x,), clip_of, labels = data.batch(torch.tensor([one, two, one]), [normaliser], TrainConfig(), seeded())
    assert x.shape == (4, 12, 8, 25)
    assert x.dtype == torch.float32
    assert clip_of.tolist() == [0, 1, 1, 2]
    assert labels.tolist() == [clips[one].label, clips[two].label, clips[one].label]
    assert x.flatten(1).any(1).all()  # no body is empty
    assert not torch.equal(x[0], x[3])  # the same clip, in another window


def test_a_still_batch_equals_the_bodies_of_evaluation(clips, normaliser):
    """Without augmentation training sees what evaluation sees, but for resampling through the 64
    stored frames."""
    at_64 = [replace(clip, joints=resize(clip.joints, STORED_FRAMES)) for clip in clips]
    expected, clip_of = body_inputs(at_64, normaliser)
    (x,), found, _ = TrainingClips(clips).batch(torch.arange(len(clips)), [normaliser], STILL, seeded())
    assert found.tolist() == clip_of.tolist()
    steps = (x - torch.from_numpy(expected)).abs() * 32
    assert steps.max() <= 1  # one step of the lattice, where rounding differs
    assert (steps > 0).float().mean() < 0.01


def test_bodies_of_evaluation(clips, normaliser):
    x, clip_of = body_inputs(clips, normaliser)
    bodies = [len(clip.joints) for clip in clips]
    assert clip_of.tolist() == [n for n, count in enumerate(bodies) for _ in range(count)]
    assert x.shape == (sum(bodies), 12, 8, 25)
    for n, clip in enumerate(clips):
        np.testing.assert_array_equal(x[clip_of == n], normaliser.clip(clip))


def test_a_generator_decides_everything(clips, normaliser):
    data, index = TrainingClips(clips), torch.arange(6)
    first, again, other = (data.batch(index, [normaliser], TrainConfig(), seeded(seed)) for seed in (1, 1, 2))
    torch.manual_seed(99)  # the global one has no part in it
    third = data.batch(index, [normaliser], TrainConfig(), seeded(1))
    for same in (again, third):
        assert torch.equal(first[0][0], same[0][0])
        assert all(torch.equal(a, b) for a, b in zip(first[1:], same[1:], strict=True))
    assert not torch.equal(first[0][0], other[0][0])


def test_two_normalisers_see_the_same_window_rotated_alike(clips, normaliser):
    fine = StreamNormaliser(normaliser.graph, 15, normaliser.units)  # every other of its frames is one of 8
    data, index = TrainingClips(clips), torch.arange(12)
    (coarse, twice), *_ = data.batch(index, [normaliser, fine], TrainConfig(), seeded())
    (alone,), *_ = data.batch(index, [normaliser], TrainConfig(), seeded())
    assert torch.equal(coarse, alone)
    for stream in (0, 1):  # positions; motions are differences to the next frame, which is nearer in the finer one
        part = slice(3 * stream, 3 * stream + 3)
        assert ((coarse[:, part] - twice[:, part, ::2]).abs() * 32).max() <= 1


def test_copies_are_found_by_their_bits(clips):
    data = TrainingClips(clips[:6])
    renamed = replace(clips[2], name="other", joints=clips[2].joints.copy())
    nearly = replace(clips[3], joints=np.nextafter(clips[3].joints, np.float32(np.inf)))
    assert data.copies([renamed, nearly, clips[8]]).tolist() == [True, False, False]


def test_augmented_bodies_stay_on_the_lattice(clips, normaliser):
    (x,), _, _ = TrainingClips(clips).batch(torch.arange(12), [normaliser], TrainConfig(), seeded())
    assert torch.equal((x * 32).round(), x * 32)
    assert x.abs().max() <= 127 / 32


def test_a_damaged_clip_is_refused_before_training(clips):
    joints = clips[0].joints.copy()
    joints[0, 2, 4, 1] = np.nan
    with pytest.raises(BadInputError, match="clip-9: body 0, frame 2, joint 4 is not finite"):
        TrainingClips([*clips, Clip("clip-9", 0, joints, "ntu-25")])


def test_a_mixture_keeps_at_least_half_of_each_clip_and_mixes_the_share_asked_for():
    partner, own = sample_mixture(4000, 0.3, seeded())
    assert sorted(partner.tolist()) == list(range(4000))
    assert own.min() >= 0.5
    assert 0.27 < (own < 1).float().mean() < 0.33
    assert torch.equal(sample_mixture(10, 0.0, seeded())[1], torch.ones(10))
    x = torch.tensor([[1.0, 2.0], [5.0, 6.0]])
    mixed = mix(x, torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
    assert torch.equal(mixed, torch.tensor([[2.0, 3.0], [5.0, 6.0]]))


def test_mixed_clips_are_mixtures_of_joints_about_their_origin_and_so_are_their_labels(clips, normaliser):
    data, index = TrainingClips(clips, classes=12), torch.arange(12)
    config = replace(STILL, mix=1.0)
    (x,), clip_of, labels = data.batch(index, [normaliser], config, seeded())
    sample_windows(12, 64, 1.0, generator := seeded())  # what a batch draws before
    sample_rotations(12, config, generator)
    partner, own = sample_mixture(12, 1.0, generator)
    bones = graph(normaliser.graph)
    joints = centred(torch.from_numpy(np.stack([resize(c.joints[:1], 8)[0] for c in clips])[:, None]), bones.centre)
    expected = normaliser(joints[partner] * (1 - own.view(-1, 1, 1, 1, 1)) + joints * own.view(-1, 1, 1, 1, 1))
    first_bodies = x[torch.searchsorted(clip_of, torch.arange(12))]
    steps = (first_bodies - expected[:, 0]).abs() * 32
    assert steps.max() <= 1  # of the input's lattice: windows are cut from 64 frames
    assert (steps > 0.5).float().mean() < 0.2
    classes = torch.eye(12)[data.labels]
    assert torch.allclose(labels, classes * own[:, None] + classes[partner] * (1 - own[:, None]))
    assert torch.equal(labels.argmax(1)[own > 0.5], data.labels[own > 0.5])
