"""The page of a real run: all clips of NW-UCLA's view 2 in the emulator, in fixed point.

MKSGN_RUN names the folder of another run to use instead.
"""

import os
from pathlib import Path

import pytest

from mksgn.bench.folder import write_reports
from mksgn.bench.record_io import load
from mksgn.bench.run import bench
from mksgn.bench.shards import Settings
from mksgn.train.datasets import open_source
from tests.bench.report.test_browser import BOX, CURSOR_SPAN, FIGURES, NUMBER, POSE, SIZES, slide
from tests.support.bench_runs import real_student_file
from tests.support.browser import Browser, executable
from tests.support.paths import NW_UCLA

CHROMIUM = executable()
GIVEN = os.environ.get("MKSGN_RUN")
pytestmark = [
    pytest.mark.slow,  # hundreds of clips; test_report_browser opens a page of a small run
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
    pytest.mark.skipif(GIVEN is None and not NW_UCLA.is_dir(), reason="NW-UCLA is not in ../shared/data/nw_ucla"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    if GIVEN is not None:
        write_reports(Path(GIVEN))
        return Path(GIVEN).resolve()
    out = tmp_path_factory.mktemp("real")
    clips = open_source(f"nw-ucla:{NW_UCLA}", split="view1-2", part="test")
    assert len(clips) == 504
    bench(real_student_file(out, clips), clips, out / "run", Settings(compare=16), seed=0)
    return out / "run"


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser.open((folder / "report.html").as_uri())


def test_every_figure_is_there(page, folder):
    for name in FIGURES:
        assert min(page.run(BOX.format(f"#fig-{name}"))) > 100, name
    layers = [layer.name for layer in load(folder).layers if layer.kind != "readout"]
    assert page.run("[...document.getElementById('clip-population').options].map(o => o.text)") == layers
    drawn = page.run("[...document.querySelectorAll('.spikes img')].map(i => i.complete && i.naturalWidth > 0)")
    assert drawn == [True] * len(layers)


def test_the_clip_steps_and_every_population_can_be_selected(page):
    frames = int(page.run("document.getElementById('clip-frame').max")) + 1
    poses, cursors = set(), set()
    for frame in range(frames):
        slide(page, frame)
        assert page.run(NUMBER) == str(frame + 1)
        poses.add(str(page.run(POSE)))
        cursors.add(page.run(CURSOR_SPAN)[0])
    assert len(cursors) == frames > 8
    assert len(poses) > frames // 2  # people stand still in some frames
    sizes = set()
    for number in range(page.run("document.getElementById('clip-population').options.length")):
        page.run(
            f"(s => {{ s.selectedIndex = {number}; s.dispatchEvent(new Event('change', {{bubbles: true}})) }})"
            "(document.getElementById('clip-population'))"
        )
        sizes.add(str(page.run(SIZES)))
    assert len(sizes) > 5


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(page, width):
    page.resize(width, 844)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_it_prints(page):
    assert page.pdf().startswith(b"%PDF")


def test_no_errors_were_logged_and_no_requests_were_sent(page, folder):
    page.settle(0.1)
    assert page.faults == []
    left = {url for url in page.requests if not url.startswith("data:image/png;base64,")}
    assert left == {(folder / "report.html").as_uri()}
