"""The picture of accuracy against synaptic operations is that of the table in docs/results.md."""

import re

from scripts.front_picture import HEIGHT, LEFT, WIDTH, Network, front, networks, picture
from tests.support.paths import DOCS

PAGE = (DOCS / "results.md").read_text(encoding="utf-8")


def test_the_picture_is_that_of_the_table():
    assert (DOCS / "front.svg").read_text(encoding="utf-8") == picture(networks(PAGE)), "make pages draws it"


def test_every_network_is_inside_the_picture():
    centres = re.findall(r'<circle cx="([-0-9.]+)" cy="([-0-9.]+)"', picture(networks(PAGE)))
    assert len(centres) == len(networks(PAGE))
    assert all(LEFT <= float(x) < WIDTH and 0 < float(y) < HEIGHT for x, y in centres)


def test_the_table_has_a_figure_for_each_seed():
    found = networks(PAGE)
    assert len(found) >= 5
    assert all(len(n.top1) == len(n.syn_ops) or len(n.syn_ops) == 1 for n in found)
    assert all(50 < top1 < 100 for n in found for top1 in n.top1)


def test_the_front_leaves_out_what_is_neither_cheaper_nor_better():
    cheap, worse, equal, best = (
        Network(name, top1, syn_ops)
        for name, top1, syn_ops in [
            ("cheap", (80.0, 82.0), (20.0,)),
            ("worse", (80.5,), (30.0,)),
            ("equal", (81.0,), (20.0,)),
            ("best", (83.0,), (50.0,)),
        ]
    )
    assert [n.name for n in front([best, worse, cheap, equal])] == ["cheap", "best"]
