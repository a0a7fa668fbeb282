"""The sample clip: its skeleton, its captions, and reasons why there is none."""

import numpy as np

from mksgn.bench.report.clip import Clip, clip_of, project
from tests.support.report_pages import (
    FRAMES,
    GRAPH,
    POPULATIONS,
    STEPS,
    full_run,
    manifest,
    moving_joints,
    text_of,
    trains,
    write_spikes,
)


def test_a_sample_clip_is_drawn_upright_at_one_scale(run_folder):
    joints = moving_joints()
    points = project(joints)
    clip = clip_of(run_folder, manifest())
    assert isinstance(clip, Clip)
    assert np.array_equal(clip.points, points)
    assert clip.frames == FRAMES
    right, down = np.diff(points[..., 0], axis=0), np.diff(points[..., 1], axis=0)
    assert (right > 0).all()  # all walk to the right
    assert np.allclose(right, right.mean(), atol=0.11)  # by as much in every frame
    assert (down == 0).all()
    assert points[0, joints[0, :, 1].argmax(), 1] == points[0, :, 1].min()  # the highest joint is on top
    assert [raster.name for raster in clip.rasters] == list(POPULATIONS)
    assert len(clip.bones) == 19
    first = clip.rasters[0]
    busiest = int(first.fired[2].argmax())
    assert clip.captions(first)[2].endswith(
        f"most neurons fired at: {GRAPH.joints[busiest]} ({first.fired[2].max()} of 3)"
    )
    text = text_of(full_run(), manifest(), clip)
    assert "The first body of the first clip, clip-0: wave, classified correctly." in text
    assert "50 neurons at each joint; 3 share a row" in text
    assert "3 frames (strides reduce 2 frames of the clip to one), each with 4 steps" in text


def test_where_there_is_no_clip_one_sentence_says_why(tmp_path):
    assert clip_of(tmp_path, manifest()) == "There is no clip to show: the folder has no spikes.npz."
    path = tmp_path / "spikes.npz"
    write_spikes(path, trains(), None)
    assert "no joints of a sample clip" in str(clip_of(tmp_path, manifest()))
    write_spikes(path, trains(), moving_joints()[:, :7])
    assert "(6, 7, 3), do not fit the graph nw-ucla-20" in str(clip_of(tmp_path, manifest()))
    write_spikes(path, trains(), moving_joints())
    assert "names no known skeleton graph (None)" in str(clip_of(tmp_path, {}))
    write_spikes(path, {"dense": np.ones((1, STEPS, 128), dtype=bool)}, moving_joints())
    reason = clip_of(tmp_path, manifest())
    assert "no population of this network has frames and the 20 joints" in str(reason)
    assert str(reason) in text_of(full_run(), manifest(), reason)
