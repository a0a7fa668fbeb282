"""mksgn/bench/manifest: what a finished run's folder states, and when it is not believed."""

import hashlib
import json
import random

import pytest

from mksgn.bench.manifest import load_manifest, verified
from mksgn.common.errors import BadInputError
from mksgn.deploy.run_folder import read_manifest, update_manifest


def write_sealed(folder, manifest):
    """manifest.json with the sha256 of its own text, in which zeros stand for that sha256."""
    text = json.dumps({**manifest, "sha256": "0" * 64})
    (folder / "manifest.json").write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))


@pytest.fixture
def folder(tmp_path):
    """A folder with a sealed manifest of two clips, and the two files that it lists."""
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "spikes.npz").write_text("")
    manifest = {
        "schema": "mksgn.manifest/1",
        "model": {"file": "model.nir", "sha256": "a" * 64},
        "parents": [],
        "data": {"source": "synthetic", "clips": ["a", "b"], "labels": [0, 1], "added later": 1},
        "execution": {"backend": "emulator"},
        "predictions": [0, 0],
        "files": {},
    }
    write_sealed(tmp_path, manifest)
    update_manifest(tmp_path, ["run.json", "spikes.npz"])
    return tmp_path


def reseal(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    write_sealed(folder, manifest)


def test_unknown_fields_are_ignored_and_absent_ones_empty(folder):
    manifest = verified(folder)
    assert manifest == load_manifest(folder)
    assert (manifest.data.clips, manifest.predictions, manifest.run, manifest.environment) == (
        ["a", "b"],
        [0, 0],
        {},
        {},
    )


def test_every_byte_of_the_manifest_is_under_its_seal(folder):
    path = folder / "manifest.json"
    whole = path.read_bytes()
    rng = random.Random(0)
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= rng.randrange(1, 256)
        path.write_bytes(spoilt)
        with pytest.raises(BadInputError):
            read_manifest(folder)


def test_a_folder_without_a_manifest_is_not_finished(tmp_path):
    assert verified(tmp_path) is None


def test_a_record_that_was_changed_or_is_not_listed_is_refused(folder):
    (folder / "run.json").write_text("{ }")
    with pytest.raises(BadInputError, match=r"run\.json: changed since the run; see mksgn-bench check"):
        verified(folder)
    (folder / "run.json").write_text("{}")
    reseal(folder, files={})
    with pytest.raises(BadInputError, match=r"run\.json: changed since the run"):
        verified(folder)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"predictions": [0]}, "1 predictions for 2 clips"),
        ({"data": {"source": "synthetic", "clips": ["a"], "labels": []}}, "2 predictions for 1 clip"),
        ({"parents": ["abc"]}, r"parents\.0: String should match pattern"),
        ({"data": {"source": "s", "clips": ["a", "b"], "classes": ["x", "y", "x"]}}, "class 'x' is named twice"),
        ({"execution": None}, "execution: Input should be a valid dictionary"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused_in_one_line(folder, changes, fault):
    reseal(folder, **changes)
    with pytest.raises(BadInputError, match=rf"manifest\.json: .*({fault})") as error:
        load_manifest(folder)
    assert "\n" not in str(error.value)
