"""How far a command is: on stderr, and never where it is quiet."""

import sys
import threading

import pytest

from mksgn.common import progress
from mksgn.common.progress import counting, track


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by what a test adds to it."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "LINE_AFTER_S", 5.0)
    monkeypatch.setattr(progress.state, "quiet", False)  # as a command does
    return now


def use_terminal(monkeypatch):
    """Make stderr one; within a test, as capsys has another stderr while it sets up."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


def slowly(items, clock, seconds):
    for _ in items:
        clock[0] += seconds


def test_what_is_quick_is_silent(clock, capsys):
    slowly(track("abc", 3, "walls"), clock, 1.0)
    assert capsys.readouterr() == ("", "")


def test_a_library_says_nothing(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.state, "quiet", progress._State().quiet)
    slowly(track("abc", 3, "walls"), clock, 60.0)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_a_line_says_how_far_it_is(clock, capsys):
    slowly(track(range(4), 8, "walls\x1b", lambda item: 2), clock, 3.0)
    assert capsys.readouterr() == ("", "walls\\x1b: 4 of 8, 6 s\nwalls\\x1b: 8 of 8, 12 s\n")


def test_lines_become_rarer(clock, capsys):
    slowly(track(range(7200), 7200, "walls"), clock, 5.0)  # ten hours
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "walls: 1 of 7,200, 5 s"
    assert 50 < len(lines) < 200


def test_with_quiet_there_is_none(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.state, "quiet", True)
    slowly(track(range(9), 9, "walls"), clock, 60.0)
    assert capsys.readouterr() == ("", "")


def test_of_two_loops_the_outer_one_is_shown(clock, capsys):
    for _ in track(range(2), 2, "houses"):
        slowly(track(range(3), 3, "walls"), clock, 6.0)
    assert capsys.readouterr().err == "houses: 1 of 2, 18 s\nhouses: 2 of 2, 36 s\n"
    slowly(track(range(1), 1, "walls"), clock, 6.0)
    assert capsys.readouterr().err == "walls: 1 of 1, 6 s\n"


def test_a_loop_that_is_left_shows_the_next(clock, capsys):
    left = track(range(2), 2, "houses")
    next(left)
    left.close()
    slowly(track(range(1), 1, "walls"), clock, 6.0)
    assert capsys.readouterr().err == "walls: 1 of 1, 6 s\n"


def test_counting_is_told_how_many_are_done(clock, capsys):
    with counting(10, "samples") as done:
        clock[0] = 6.0
        done(4)
        clock[0] = 12.0
        done(6)
        done(1)  # more than there were is no error
    assert [line for line in capsys.readouterr().err.splitlines() if "samples" in line][-1] == "samples: 5 of 10, 12 s"


def test_on_a_terminal_every_item_is_handed_on_and_stdout_stays_empty(monkeypatch, capsys):
    use_terminal(monkeypatch)
    assert list(track(iter("abc"), 3, "walls")) == ["a", "b", "c"]
    printed, shown = capsys.readouterr()
    assert printed == ""
    assert "walls" in shown


def test_on_a_terminal_no_thread_is_started(monkeypatch, capsys):
    """Lava's Processes are forked while it is shown."""
    use_terminal(monkeypatch)
    before = threading.active_count()
    assert [threading.active_count() - before for _ in track(iter("abc"), 3, "walls")] == [0, 0, 0]
