"""A data set of tonic goes through `measure` as docs/bench.md says: events become frames of 0 and 1."""

import os

import numpy as np
import pytest

from mksgn.bench import measure
from tests.support.graphs import affine, chain, flatten, inp, lif, out

WHY = "tonic is not installed here: make test-interop"
if os.environ.get("MKSGN_INTEROP"):
    import tonic

tonic = pytest.importorskip("tonic", reason=WHY)

SENSOR, BINS, RECORDINGS = (4, 3, 2), 10, 6
EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])


class Recordings(tonic.Dataset):
    """Random events, as tonic's data sets return them."""

    sensor_size = SENSOR

    def __init__(self, transform):
        super().__init__("", transform=transform)
        rng = np.random.default_rng(0)
        for label in range(RECORDINGS):
            events = np.zeros(80, EVENT)
            for name, most in (("x", 4), ("y", 3), ("t", 1000), ("p", 2)):
                events[name] = rng.integers(0, most, 80)
            self.data.append(np.sort(events, order="t"))
            self.targets.append(label % 2)

    def __getitem__(self, index):
        return self.transform(self.data[index]), self.targets[index]

    def __len__(self):
        return len(self.data)


def test_its_recordings_are_measured_event_by_event():
    frames = tonic.transforms.ToFrame(sensor_size=Recordings.sensor_size, n_time_bins=BINS)
    data = Recordings(transform=lambda events: frames(events) > 0)
    rng = np.random.default_rng(1)
    graph = chain(
        ("x", inp(2, 3, 4)), ("flat", flatten(2, 3, 4)), ("w", affine(rng.normal(0, 1, (5, 24)), np.zeros(5))),
        ("n", lif(5)), ("y", out(5)),
    )  # fmt: skip
    record = measure(graph, data).record
    steps = np.stack([x for x, _ in data])
    assert record.data.clips == RECORDINGS
    assert steps.shape[1] in (BINS, BINS + 1)
    assert record.layers[0].syn_ops == 5 * int(steps.sum()) > 0
    assert measure(graph, steps, [y for _, y in data]).layers == record.layers
