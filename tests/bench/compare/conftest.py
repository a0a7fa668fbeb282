"""Real runs for all tests of this folder."""

import pytest

from tests.support.bench_folders import make_run, run_again


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Run one model twice, on more clips and on other clips, and another model on the same clips."""
    lab = tmp_path_factory.mktemp("lab")
    first = make_run(lab / "one")
    model = first.parent / "model.nir"
    return {
        "first": first,
        "again": run_again(model, lab / "one" / "again"),
        "more": run_again(model, lab / "one" / "more", clips=8),
        "other clips": run_again(model, lab / "one" / "other", seed=3),
        "other model": make_run(lab / "two", seed=5),
    }
