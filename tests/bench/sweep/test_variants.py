"""Variants of a trained student."""

import numpy as np

from mksgn.bench.sweep.grid import read
from mksgn.bench.sweep.variants import graph_of, scale_thresholds, with_steps
from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.datasets import open_source
from mksgn.train.transforms import body_inputs


def test_variants_keep_the_weights_and_change_steps_and_thresholds(folder):
    trained = checkpoint.load(folder / "model.pt")
    again = with_steps(trained, 6)
    assert again.student.config.steps == 6
    assert all((again.student.state_dict()[name] == x).all() for name, x in trained.student.state_dict().items())
    plain, scaled = export_to_nir(trained), export_to_nir(trained)
    scale_thresholds(scaled, 1.5)
    for name, node in plain.nodes.items():
        for field in ("v_threshold", "threshold_m", "threshold_z"):
            if hasattr(node, field):
                assert np.allclose(
                    getattr(scaled.nodes[name], field), 1.5 * np.asarray(getattr(node, field)), rtol=1e-6
                )
        if hasattr(node, "weight"):
            assert np.array_equal(node.weight, scaled.nodes[name].weight)


def test_the_variant_that_changes_nothing_is_the_export(folder):
    """The same weights, scales and thresholds as mksgn-export writes."""
    grid = read(folder / "grid.yaml")
    variant = next(grid.variants()).model_copy(update={"steps": None, "threshold": 1.0})
    trained = checkpoint.load(folder / "model.pt")
    samples, _ = body_inputs(open_source("synthetic", part="train", limit=8).clips, trained.normaliser)
    graph, expected = graph_of(variant, samples), files.read(folder / "model.nir")
    assert graph.nodes.keys() == expected.nodes.keys()
    for name, node in expected.nodes.items():
        for field in ("weight", "bias", "v_threshold", "threshold_m"):
            if hasattr(node, field):
                assert np.array_equal(np.asarray(getattr(graph.nodes[name], field)), np.asarray(getattr(node, field)))
