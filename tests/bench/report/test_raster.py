"""Spike rasters: every spike at its joint, neuron, frame and step."""

import base64
import io

import numpy as np
from PIL import Image

from mksgn.bench.report.raster import ROWS_PER_JOINT, raster_of
from tests.support.report_pages import FRAMES, STEPS, trains


def test_a_raster_has_each_spike_at_its_joint_neuron_frame_and_step(run_folder):
    spikes = trains()["encoder"][0]  # (S, C, T, V)
    raster = raster_of(run_folder / "spikes.npz", "encoder")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(raster.image.partition(",")[2]))).convert("RGBA"))
    assert image.shape[:2] == (20 * 3, FRAMES * STEPS)
    for joint in range(20):
        for neuron in range(3):
            opacity = image[joint * 3 + neuron, :, 3].reshape(FRAMES, STEPS)
            assert np.array_equal(opacity == 255, spikes[:, neuron, :, joint].T)
            assert set(np.unique(opacity)) <= {0, 255}
    assert np.array_equal(raster.fired, spikes.any(0).sum(0))
    assert np.array_equal(raster.spikes, spikes.sum((0, 1, 3)))


def test_many_neurons_share_rows_and_attention_is_read_by_its_queries(run_folder):
    raster = raster_of(run_folder / "spikes.npz", "blocks.0.attention.m")
    spikes = trains()["blocks.0.attention.m"][0]  # (S, heads, T, query, key)
    assert (raster.neurons, raster.group, raster.frames) == (40, 40 // ROWS_PER_JOINT, FRAMES)
    assert np.array_equal(raster.fired, spikes.any(0).sum((0, 3)))
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(raster.image.partition(",")[2]))).convert("RGBA"))
    pairs = spikes.transpose(3, 1, 4, 2, 0).reshape(20 * ROWS_PER_JOINT, 2, FRAMES * STEPS)  # head, key: a channel
    assert np.array_equal(image[..., 3] > 0, pairs.any(1))
    assert np.array_equal(image[..., 3] == 255, pairs.all(1))
