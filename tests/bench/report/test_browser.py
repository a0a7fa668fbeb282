"""report.html in a real browser: no errors and no requests; figures, stepping, dark mode, print and narrow screens."""

import re

import pytest

from mksgn.bench.report.write import write_report
from tests.support.browser import Browser, executable
from tests.support.report_pages import FRAMES, POPULATIONS, folder_of_run

CHROMIUM = executable()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")

A4 = 680  # CSS pixels between margins of 15 mm
FIGURES = ("clip", "layers", "theory", "energy", "confusion", "limits", "cores")
POSE = "[...document.querySelectorAll('#skeleton .joint')].map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"
BONES = "[...document.querySelectorAll('#skeleton .bone')].map(b => [b.x1.baseVal.value, b.y2.baseVal.value])"
SIZES = "[...document.querySelectorAll('#skeleton .joint')].map(c => c.r.baseVal.value)"
VISIBLE = "[...document.querySelectorAll('[data-raster]')].findIndex(p => !p.hidden)"
CURSOR = (
    "(p => [p.querySelector('.cursor'), p.querySelector('.spikes')].map(e => e.getBoundingClientRect()))"
    "([...document.querySelectorAll('[data-raster]')].find(p => !p.hidden))"
)
CURSOR_SPAN = f"(([c, s]) => [(c.left - s.left) / s.width, c.width / s.width])({CURSOR})"
NUMBER = "document.getElementById('clip-number').textContent"
BOX = "(r => [r.width, r.height])(document.querySelector('{}').getBoundingClientRect())"


def slide(page, frame):
    """Move the slider as a reader does: a new value, then the input event."""
    page.run(
        f"(e => {{ e.value = {frame}; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
        "(document.getElementById('clip-frame'))"
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(folder_of_run(tmp_path_factory.mktemp("run")))[0].as_uri()


@pytest.fixture
def page(browser, report):
    opened = browser.open(report)
    yield opened
    opened.settle(0.1)
    assert opened.faults == []
    assert {url for url in opened.requests if not url.startswith("data:image/png;base64,")} == {report}
    opened.call("Page.close")


def test_the_collector_notices_errors_exceptions_violations_and_requests(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("""<meta http-equiv="Content-Security-Policy" content="font-src 'none'">
        <style>@font-face { font-family: f; src: url(http://127.0.0.1:9/f.woff) } p { font-family: f }</style><p>text
        <script>console.error("an error of its own"); setTimeout(() => { throw new Error("thrown late") })</script>
        <img src="http://127.0.0.1:9/picture.png">""")
    page = browser.open(path.as_uri())
    page.settle()
    faults = "\n".join(page.faults)
    assert "an error of its own" in faults
    assert "thrown late" in faults
    assert "Content Security Policy" in faults
    assert "http://127.0.0.1:9/picture.png" in page.requests
    page.call("Page.close")


def test_the_policy_stops_what_would_leave_the_page(browser, report):
    page = browser.open(report)
    page.run(
        "fetch('http://127.0.0.1:9/').catch(() => 0).then(() => new Promise(done => {"
        " const i = new Image(); i.onerror = done; i.src = 'http://127.0.0.1:9/p.png'; }))"
    )
    page.run(
        "(s => { s.textContent = 'window.foreign = 1'; document.body.append(s) })(document.createElement('script'))"
    )
    page.settle()
    assert page.run("window.foreign") is None
    assert sum("Content Security Policy" in fault for fault in page.faults) >= 3, page.faults
    page.call("Page.close")


def test_every_figure_is_there(page):
    for name in FIGURES:
        assert min(page.run(BOX.format(f"#fig-{name}"))) > 100, name
    sizes = page.run("[...document.querySelectorAll('svg.chart')].map(s => s.getBoundingClientRect().height)")
    assert len(sizes) == 5
    assert min(sizes) > 40
    images = page.run("[...document.querySelectorAll('.spikes img')].map(i => [i.complete, i.naturalWidth])")
    assert images == [[True, (FRAMES // 2 if "conv" in name else FRAMES) * 4] for name in POPULATIONS]
    assert min(page.run(BOX.format(".spikes img"))) > 100
    assert min(page.run(BOX.format("#skeleton"))) > 100
    cells = page.run(
        "[...document.querySelectorAll('#fig-confusion td.cell')].map(c => getComputedStyle(c).backgroundColor)"
    )
    assert len(cells) == 9
    assert len(set(cells)) == 3  # of a row: none, half, all


def test_the_slider_moves_the_skeleton_and_the_cursor(page):
    states = []
    for frame in range(FRAMES):
        slide(page, frame)
        left, width = page.run(CURSOR_SPAN)
        assert left == pytest.approx(frame / FRAMES, abs=0.01)
        assert width == pytest.approx(1 / FRAMES, abs=0.01)
        assert page.run(NUMBER) == str(frame + 1)
        assert page.run("document.getElementById('clip-frame').ariaValueText") == f"frame {frame + 1} of {FRAMES}"
        states.append(
            [
                page.run(POSE),
                page.run(BONES),
                page.run(SIZES),
                page.run("document.querySelector('#clip-text').textContent"),
            ]
        )
    for values in zip(*states, strict=True):
        assert len({str(value) for value in values}) == FRAMES
    assert states[1][0][0][0] > states[0][0][0][0]  # the bodies walk to the right


def test_another_population_has_its_own_raster_cursor_and_joints(page):
    slide(page, FRAMES - 1)
    before = page.run(SIZES)
    assert page.run("[...document.getElementById('clip-population').options].map(o => o.text)") == list(POPULATIONS)
    page.run("document.getElementById('clip-population').focus()")
    page.press("ArrowDown")
    assert page.run(VISIBLE) == 1
    assert page.run(SIZES) != before
    assert page.run(CURSOR_SPAN) == pytest.approx([2 / 3, 1 / 3], abs=0.01)  # after a stride: the last of three frames
    assert "spikes in blocks.0.conv; most neurons fired at:" in page.run(
        "document.getElementById('clip-text').textContent"
    )
    assert page.run(NUMBER) == str(FRAMES)


def test_keys_and_buttons_step(page):
    page.prefer(prefers_reduced_motion="reduce")  # focus scrolls smoothly, and a click would miss
    page.run("document.getElementById('clip-frame').focus()")
    for key, frame in (
        ("ArrowRight", 2),
        ("End", FRAMES),
        ("ArrowRight", FRAMES),
        ("ArrowLeft", FRAMES - 1),
        ("Home", 1),
    ):
        page.press(key)
        assert page.run(NUMBER) == str(frame), key
    page.click("#clip-on")
    assert page.run(NUMBER) == "2"
    page.press("ArrowRight")  # the button has the focus now
    assert page.run(NUMBER) == "3"
    page.click("#clip-back")
    assert page.run(NUMBER) == "2"


def test_it_plays_only_on_request(page):
    page.settle(1.2)
    assert page.run(NUMBER) == "1"
    page.click("#clip-play")
    page.run(
        f"new Promise(done => {{ const t = setInterval(() => {NUMBER} !== '1' && (clearInterval(t), done()), 20) }})"
    )
    assert page.run("document.getElementById('clip-play').textContent") == "Pause"
    page.click("#clip-play")
    still = page.run(NUMBER)
    page.settle(0.8)
    assert page.run(NUMBER) == still
    assert page.run("document.getElementById('clip-play').textContent") == "Play"


def test_dark_inverts_page_and_rasters_and_paper_stays_light(page):
    page.prefer(prefers_color_scheme="light")
    ground, ink = "getComputedStyle(document.body).backgroundColor", "getComputedStyle(document.body).color"
    image = "getComputedStyle(document.querySelector('.spikes img')).filter"
    light = [page.run(expression) for expression in (ground, ink, image)]
    page.prefer(prefers_color_scheme="dark")
    dark = [page.run(expression) for expression in (ground, ink, image)]
    brightness = [
        [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours[:2]] for colours in (light, dark)
    ]
    assert brightness[0][0] > 600 > 200 > brightness[0][1]
    assert brightness[1][0] < 200 < 600 < brightness[1][1]
    assert (light[2], dark[2]) == ("none", "invert(1)")
    page.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.run(ground) == "rgb(255, 255, 255)"
    assert page.run(image) == "none"


def test_it_prints_with_the_first_frame_and_without_controls(page):
    document = page.pdf()
    assert document.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", document)) > 2
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run(BOX.format("#clip-controls")) == [0, 0]
    assert min(page.run(BOX.format("#skeleton"))) > 100
    assert min(page.run(BOX.format(".spikes img"))) > 100
    hashes = "document.querySelector('details.printed table').checkVisibility()"
    assert page.run(hashes)  # although they are folded on screen
    page.resize(A4, 980)
    past = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth)"
    assert page.run(f"{past}.map(e => e.outerHTML.slice(0, 80))") == []  # tables do not scroll on paper
    page.call("Emulation.setEmulatedMedia", media="")
    assert not page.run(hashes)


def test_without_a_script_the_first_frame_is_drawn(browser, report):
    with_script = browser.open(report)
    page = browser.open("about:blank")
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.loaded = False
    page.call("Page.navigate", url=report)
    page.wait(lambda: page.loaded)
    for expression in (POSE, SIZES, CURSOR_SPAN, VISIBLE, NUMBER, "document.getElementById('clip-text').textContent"):
        assert page.run(expression) == with_script.run(expression), expression
    assert page.run("document.getElementById('clip-controls').hidden") is True
    assert with_script.run("document.getElementById('clip-controls').hidden") is False
    for opened in (page, with_script):
        opened.call("Page.close")


@pytest.mark.parametrize("width", [390, 320])
def test_a_narrow_screen_scrolls_tables_not_the_page(page, width):
    page.resize(width, 844)
    assert page.run("document.documentElement.scrollWidth") <= width
    past = page.run(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && e.getClientRects().length"
        f" && e.getBoundingClientRect().right > {width}).map(e => e.outerHTML.slice(0, 80))"
    )
    assert past == []
    assert page.run("document.querySelector('#layers .scroll').scrollWidth") > width


OPEN = "[...document.querySelectorAll('details.section')].filter(d => d.open).map(d => d.closest('section').id)"


def test_sections_fold_and_a_link_opens_the_one_that_it_leads_to(page):
    page.prefer(prefers_reduced_motion="reduce")
    assert page.run(OPEN) == ["clip", "energy"]
    page.click('#summary a[href="#classes"]')
    page.settle(0.1)
    assert page.run(OPEN) == ["clip", "energy", "classes"]
    page.click("#all-sections")
    assert len(page.run(OPEN)) == page.run("document.querySelectorAll('main > section').length")
    page.click("#all-sections")
    assert page.run(OPEN) == []
    page.click('#summary a[href="#repriced"]')  # a heading inside a section
    page.settle(0.1)
    assert page.run(OPEN) == ["claims"]


def test_a_heading_sorts_its_table_by_number_and_back(page):
    page.prefer(prefers_reduced_motion="reduce")
    page.run("document.querySelectorAll('details.section').forEach(d => { d.open = true })")
    column = "[...document.querySelectorAll('#energy tbody tr')].map(r => r.cells[2].dataset.value)"
    heading = "#energy thead th:nth-child(3)"
    page.click(heading)
    priced = [float(value) for value in page.run(column) if value]
    assert priced == sorted(priced)
    assert page.run(column)[-1] == ""  # the anchor has no total
    page.click(heading)
    assert [float(value) for value in page.run(column) if value] == sorted(priced, reverse=True)
    assert page.run(f"document.querySelector('{heading}').ariaSort") == "descending"
    page.click("#layers thead th:nth-child(9)")  # synaptic operations, with thousands separators
    rows = "[...document.querySelectorAll('#layers tbody tr')].map(r => r.cells[8].textContent)"
    assert page.run(rows) == ["0", "150", "1,100", "1,750"]


def test_a_table_is_saved_as_csv(page):
    page.prefer(prefers_reduced_motion="reduce")
    page.run("document.querySelectorAll('details.section').forEach(d => { d.open = true })")
    page.run(
        "(make => { URL.createObjectURL = blob => { window.saved = blob; return make(blob) } })(URL.createObjectURL)"
    )
    page.run("HTMLAnchorElement.prototype.click = function () { window.named = this.download }")
    page.click("#layers .tools button")
    lines = page.run("window.saved.text()").lstrip("\ufeff").splitlines()
    assert page.run("window.named") == "layers-layers.csv"
    assert lines[0].startswith("Layer,Shape,Kind,Neurons,Firing rate (% per step),Spikes (per clip),")
    assert "blocks.0.conv,4 × 5 × 5,conv,100,25,100,2,1,1750," in "\n".join(lines)
    assert lines[-1].startswith("On the chip,,,203,,200,")
