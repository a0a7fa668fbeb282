"""mksgn/common/lock: one writer per folder, whatever becomes of it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mksgn.common.errors import BadInputError
from mksgn.common.lock import LOCK_FILE, locked
from tests.support.refusals import refusal


def taken(folder):
    with locked(folder):
        return True


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    with locked(tmp_path):
        message = refusal(lambda: taken(tmp_path))
        assert f"process {os.getpid()} on " in message
        assert "wait until it ends, or choose another folder" in message
    assert taken(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_releases_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    assert taken(tmp_path)


def test_a_killed_process_s_lock_is_free_while_its_children_live(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from mksgn.common.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        assert "-c" in refusal(lambda: taken(tmp_path))
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        limit = time.monotonic() + 10
        while True:
            try:
                assert taken(tmp_path)
                break
            except BadInputError:  # the fork has not run its hook yet
                assert time.monotonic() < limit
                time.sleep(0.01)
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_another_s_file_is_neither_followed_nor_emptied(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for make in (os.symlink, os.link):
        make(victim, tmp_path / LOCK_FILE)
        assert LOCK_FILE in refusal(lambda: taken(tmp_path))
        (tmp_path / LOCK_FILE).unlink()
    assert victim.read_text() == "mine"


def test_what_a_lock_file_says_is_harmless(tmp_path):
    with locked(tmp_path):
        path = tmp_path / LOCK_FILE
        path.write_text('{"command": "a\\u001b[2J", "process": 1, "host": "h\\n", "since": "now"}')
        assert "\x1b" not in refusal(lambda: taken(tmp_path))
        path.write_text("nothing of ours")
        assert "another process" in refusal(lambda: taken(tmp_path))
