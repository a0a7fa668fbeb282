"""Only regular files of a bounded size are opened, and none is waited for."""

import os
import socket
from pathlib import Path

import pytest

from mksgn.common.reading import open_file, read_bytes, read_text
from tests.support.refusals import refusal


def test_a_regular_file_is_read_and_so_is_a_link_to_one(tmp_path):
    (tmp_path / "a").write_bytes("é".encode())
    (tmp_path / "link").symlink_to("a")
    assert read_text(tmp_path / "link") == "é"
    assert read_bytes(tmp_path / "a", 2) == b"\xc3\xa9"


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(path))  # the whole path may be longer than a socket's name


def folder(path):
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "said"), [(pipe, "is a named pipe"), (unix_socket, "cannot be opened"), (folder, "is a directory")]
)
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, make, said):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x")
    assert refusal(lambda: open_file(tmp_path / "x", None)).startswith(f"{tmp_path / 'x'}: {said}")


@pytest.mark.parametrize(
    ("path", "said"),
    [("/dev/zero", "is a device"), ("/none/such", "no such file; look for it"), ("a\0b", "cannot be opened")],
)
def test_devices_and_absent_files_are_refused(path, said):
    assert said in refusal(lambda: open_file(Path(path), 10, "look for it"))


def test_a_file_is_held_against_its_limit(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    assert "has 5 bytes, the limit is 4" in refusal(lambda: read_bytes(tmp_path / "a", 4))


def test_text_is_utf_8(tmp_path):
    (tmp_path / "a").write_bytes(b"abc\xff")
    assert "is not UTF-8 (byte 3)" in refusal(lambda: read_text(tmp_path / "a"))
