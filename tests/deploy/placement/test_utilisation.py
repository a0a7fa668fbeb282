"""mksgn/deploy/placement/utilisation: the table and the picture show the counts of the placement."""

import io
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from mksgn.deploy import compile_graph
from mksgn.deploy.errors import DeployError
from mksgn.deploy.placement.chips import LOIHI1, LOIHI2, Chip
from mksgn.deploy.placement.place import Placement, place
from mksgn.deploy.placement.utilisation import COLOURS, MOST_ROWS, draw, shares, utilisation_table
from tests.support.graphs import student_like
from tests.support.tiers import one_in

SMALL = Chip("small", 8, 40, 10**4, "made up", 60)


def placement(chip) -> Placement:
    return place(compile_graph(student_like(np.random.default_rng(0)), precision="float"), chip)


def text(placed: Placement) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(utilisation_table(placed))
    return console.file.getvalue()


def test_few_cores_get_a_row_each():
    placed = placement(replace(LOIHI1, name="small", cores=4))
    assert placed.cores <= MOST_ROWS
    table = utilisation_table(placed)
    assert table.title == f"{placed.cores} cores on 3 chips of small"
    assert table.row_count == placed.cores + 1
    columns = {c.header: list(c.cells) for c in table.columns}
    assert list(columns) == ["population", "core", "neurons", "synaptic bits", "input axons", "output axons"]
    row = columns["population"].index("attend.m units")
    assert columns["core"][row] == "2"
    assert columns["neurons"][row] == "144  14%"
    assert columns["synaptic bits"][row] == "2,304   0%"
    assert columns["input axons"][row] == "96   2%"  # q and k: 2 · 4 channels · 4 frames · 3 joints
    assert columns["output axons"][row] == "144   4%"


def test_many_cores_get_a_row_per_population():
    placed = placement(replace(SMALL, neurons_per_core=10))
    assert placed.cores > MOST_ROWS
    table = utilisation_table(placed)
    assert table.row_count == len(placed.populations) + 1
    columns = {c.header: list(c.cells) for c in table.columns}
    for p, cores, neurons in zip(placed.populations, columns["cores"], columns["neurons"], strict=False):
        assert cores == str(p.cores)
        most, mean = p.usage[:, 0].max(), p.usage[:, 0].mean()
        assert neurons == f"{most} {most / 10:4.0%} ({mean / 10:.0%})"


def test_a_limit_that_is_not_published_is_said_so():
    assert text(placement(LOIHI2)).count("not published") == 2
    assert "not published" not in text(placement(LOIHI1))


def test_shares_of_unpublished_limits_are_none():
    used = shares(placement(LOIHI2))
    assert used.shape == (9, 4)
    assert (used[:, :2] > 0).all()
    assert (used[:, 2:] == 0).all()


@pytest.mark.parametrize("ending", one_in(3, ["pdf", "png", "svg"]))
def test_a_picture_is_written(tmp_path, ending):
    path = tmp_path / f"cores.{ending}"
    draw(placement(SMALL), path)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)


def colours_of(path) -> set[tuple[int, ...]]:
    pixels = np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(colour) for colour, count in zip(colours, counts, strict=True) if count > 200}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_the_picture_has_the_colours_of_the_fullest_resources(tmp_path):
    placed = placement(replace(SMALL, synaptic_bits_per_core=1600))
    fullest = set(shares(placed).argmax(axis=1))
    assert fullest == {0, 1, 2}
    assert not (shares(placed) > 1).any()
    draw(placed, tmp_path / "a.png")
    colours = colours_of(tmp_path / "a.png")
    assert {rgb(COLOURS[i]) for i in fullest} <= colours
    assert rgb(COLOURS[3]) not in colours  # output axons: no limit, and not in the key


def test_the_picture_shows_in_black_what_is_over_its_limit(tmp_path):
    placed = placement(replace(SMALL, synaptic_bits_per_core=100))
    assert placed.overflows
    draw(placed, tmp_path / "a.svg")
    assert "over its limit" in (tmp_path / "a.svg").read_text()
    draw(placement(SMALL), tmp_path / "b.svg")
    assert "over its limit" not in (tmp_path / "b.svg").read_text()


def test_the_picture_names_populations_and_what_has_no_limit(tmp_path):
    placed = placement(LOIHI2)
    draw(placed, tmp_path / "a.svg")
    picture = (tmp_path / "a.svg").read_text()
    assert all(p.name in picture for p in placed.populations)
    assert "no limit published: input axons, output axons" in picture


def test_a_program_without_cores_has_an_empty_picture(tmp_path):
    placed = placement(SMALL)
    program = replace(placed.program, populations=placed.program.inputs, projections=(), outputs=())
    empty = place(program, SMALL)
    draw(empty, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert utilisation_table(empty).row_count == 1


def test_the_same_placement_gives_the_same_picture(tmp_path):
    for name in ("a.png", "b.png"):
        draw(placement(SMALL), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name", ["cores.jpg", "cores"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(
        DeployError, match=r"a picture is written as \.png, \.svg, \.pdf; give the path one of these suffixes"
    ):
        draw(placement(SMALL), tmp_path / name)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DeployError, match=r"cannot be written \(No such file or directory\)"):
        draw(placement(SMALL), tmp_path / "none" / "cores.png")
