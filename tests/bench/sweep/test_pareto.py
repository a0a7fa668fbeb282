"""Pareto fronts, tables and pictures of a sweep."""

import json
import re
from dataclasses import replace

import pytest

from mksgn.bench.check.check import check
from mksgn.bench.energy_models import model_named
from mksgn.bench.sweep import pareto, picture
from mksgn.bench.sweep.grid import read


def row(label: str, top1: float, energy: float, bound: bool = False) -> pareto.Row:
    return pareto.Row(
        label, "m", 4, 1.0, 8, "loihi2", top1, 10.0, 20.0, 5, 3, 1, 0, {"e": pareto.Energy(energy, bound)}
    )


def test_the_front_is_not_dominated():
    points = [
        row("a", 0.5, 1.0),
        row("b", 0.6, 2.0),
        row("c", 0.6, 3.0),
        row("d", 0.4, 1.0),
        row("e", 0.9, 9.0),
        row("f", 0.6, 2.0),
    ]
    assert [x.label for x in pareto.front(points, "e")] == ["a", "b", "f", "e"]
    assert pareto.front(points, "another") == []


def test_a_lower_bound_does_not_dominate_a_total():
    points = [row("bound", 0.5, 1.0, bound=True), row("total", 0.5, 2.0), row("higher bound", 0.4, 1.5, bound=True)]
    assert [x.label for x in pareto.front(points, "e")] == ["bound", "total"]


def test_what_does_not_simply_fit_is_said_once_for_all_of_its_points():
    open_limits = {"fit": "not checked", "limits": "fits what is published of loihi2; NOT CHECKED: axons"}
    points = [
        replace(row("a", 0.5, 1.0), **open_limits),
        replace(row("b", 0.5, 1.0), **open_limits),
        replace(row("c", 0.5, 1.0), fit="exceeds", limits="exceeds loihi1: axons"),
        row("d", 0.5, 1.0),
    ]
    assert pareto.fits(points) == [f"a, b: {open_limits['limits']}", "c: exceeds loihi1: axons"]
    assert pareto.fits(points[:2]) == [f"all points: {open_limits['limits']}"]
    text = pareto.markdown(points, {"e": []})
    assert [line.split("|")[-2].strip() for line in text.splitlines() if "50 %" in line.replace("\xa0", " ")] == [
        "NOT CHECKED", "NOT CHECKED", "exceeds", "fits",
    ]  # fmt: skip
    assert text.endswith("- c: exceeds loihi1: axons")


@pytest.mark.slow
def test_tables_and_pictures(folder, one_worker):
    out, records = one_worker
    grid = read(folder / "grid.yaml")
    points = pareto.rows(grid, records, [model_named(name) for name in grid.energy_models])
    paths = pareto.write(out, grid, points)
    assert [p.name for p in paths] == [
        "sweep.json",
        "sweep.md",
        "pareto-horowitz45-fp32.png",
        "pareto-davies2018-loihi1.png",
    ]
    result = json.loads(paths[0].read_text())
    assert [p["label"] for p in result["points"]] == list(records)
    assert set(result["fronts"]["horowitz45-fp32"]) <= set(records)
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    text = paths[1].read_text()
    assert {p["fit"] for p in result["points"] if p["chip"] == "loihi2"} == {"not checked"}
    assert {p["fit"] for p in result["points"] if p["chip"] == "loihi1"} == {"fits"}
    assert "fits what is published of loihi2; NOT CHECKED, no limit published: input axons per core" in text
    assert text.count("| [tiny-") + text.count("| **front** [tiny-") == 16
    linked = set(re.findall(r"\]\((points/[^)]+)\)", text))
    assert len(linked) == len(records)
    for name in linked:
        assert (out / name).read_text().startswith("<!doctype html>")
        assert check((out / name).parent).passed
    assert "≥ " in text.split("davies2018-loihi1")[1]
    assert "≥ " not in text.split("davies2018-loihi1")[0]


def test_the_picture_ends_at_100_percent_with_its_front_and_every_point_labelled(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    points = [
        replace(row(f"S{steps}-b{bits}", top1, energy), steps=steps, bits=bits)
        for steps, bits, top1, energy in ((2, 8, 0.5, 1.0), (4, 8, 1.0, 2.0), (2, 4, 0.4, 3.0))
    ]
    picture.draw(points, pareto.front(points, "e"), "e", tmp_path / "front.png")
    (axes,) = drawn[0].axes
    assert axes.get_ylim()[1] == 100
    (line,) = axes.get_lines()
    assert line.get_xydata().tolist() == [[1, 50], [2, 100]]
    assert {text.get_text() for text in axes.texts} == {"S2 b8", "S4 b8", "S2 b4"}
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_label_has_the_coordinates_that_differ():
    assert picture.labels([row("only", 0.5, 1.0)]) == ["only"]
    two = [row("a", 0.5, 1.0), replace(row("b", 0.5, 1.0), threshold=1.1, chip="loihi1")]
    assert picture.labels(two) == ["th1 loihi2", "th1.1 loihi1"]
