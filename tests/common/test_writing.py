"""mksgn/common/writing: whole files or none, nobody else's file, and one error where the disk is full."""

import errno
import os

import h5py
import numpy as np
import pytest
import torch

from mksgn.common import writing
from mksgn.common.errors import BadInputError
from mksgn.common.writing import append, check_replaceable, replacing, replacing_file, replacing_folder, write_text
from tests.support.full_disk import full_disk

BIG = np.random.default_rng(0).integers(0, 255, 50_000, np.uint8)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_or_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("mine")
    link.symlink_to(victim)
    writing.write_text(link, "new")
    assert victim.read_text() == "mine"
    assert link.read_text() == "new"
    assert not link.is_symlink()


def put_npz(path):
    with replacing_file(path) as file:
        np.savez(file, a=BIG, b=BIG)


def put_tensors(path):
    with replacing_file(path) as file:
        torch.save({"a": torch.from_numpy(BIG), "b": [1, 2]}, file)


def put_hdf5(path):
    with replacing_file(path) as open_file, h5py.File(open_file, "w", rdcc_nbytes=0, rdcc_nslots=0) as file:
        for i in range(300):  # more than HDF5 holds in its cache of metadata
            file.create_group(f"node{i}").create_dataset("a", data=BIG[:500], compression="gzip")


def put_text(path):
    writing.write_text(path, "a" * 10_000)


def put_picture(path):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_subplot().imshow(BIG.reshape(250, 200))
    with replacing_file(path) as file:
        figure.savefig(file, format="png")


@pytest.mark.parametrize("put", [put_npz, put_tensors, put_hdf5, put_text, put_picture])
def test_a_full_disk_is_one_error_and_leaves_what_was_there(tmp_path, capfd, put):
    if put is put_picture:
        pytest.importorskip("matplotlib")
    path = tmp_path / "a"
    path.write_text("old")
    with full_disk(), pytest.raises(OSError, match="File too large") as caught:
        put(path)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("put", [put_npz, put_tensors])
def test_an_archive_is_what_an_ordinary_file_would_hold(tmp_path, put, monkeypatch):
    put(tmp_path / "a")
    ordinary = tmp_path / "b"
    monkeypatch.setattr(f"{__name__}.replacing_file", lambda path: ordinary.open("wb"))
    put(tmp_path / "never")
    assert (tmp_path / "a").read_bytes() == ordinary.read_bytes()


def test_another_failure_of_a_writer_is_its_own(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing_file(tmp_path / "a"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_folder_is_replaced_at_the_end(tmp_path):
    folder = tmp_path / "run"
    for content in ("old", "new"):
        with replacing_folder(folder) as draft:
            (draft / content).write_text(content)
        assert names(folder) == [content]
    with pytest.raises(ZeroDivisionError), replacing_folder(folder) as draft:
        raise ZeroDivisionError
    assert names(tmp_path) == ["run"]


def test_a_line_is_appended_to_a_file_of_ours_only(tmp_path):
    path, victim = tmp_path / "run.log", tmp_path / "victim"
    append(path, "a\n")
    append(path, "b\n")
    assert path.read_text() == "a\nb\n"
    victim.write_text("mine")
    for make in (os.symlink, os.link):
        path.unlink()
        make(victim, path)
        with pytest.raises(OSError, match=r"run\.log"):
            append(path, "c\n")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"run\.log"):
        append(path, "c\n")
    assert victim.read_text() == "mine"


def test_stale_temporaries_go_and_a_user_s_files_stay(tmp_path):
    stale = [".state.pt.0123456789abcdef.part", ".state.pt.0123456789abcdee.part"]
    kept = [".state.pt.mine.part", ".other.0123456789abcdef.part", "state.pt.part"]
    for name in [*stale[:1], *kept]:
        (tmp_path / name).write_text("")
    (tmp_path / stale[1]).mkdir()
    writing.remove_temporaries(tmp_path, "state.pt")
    assert names(tmp_path) == sorted(kept)


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_this_command_did_not_write_is_replaced_on_demand_only(tmp_path, ours, overwrite):
    path = tmp_path / "a.md"
    check_replaceable(path, ours, "a comparison", overwrite=overwrite)
    path.symlink_to("nowhere")
    if ours or overwrite:
        check_replaceable(path, ours, "a comparison", overwrite=overwrite)
    else:
        with pytest.raises(BadInputError, match=r"a\.md: exists, and is not a comparison .* --overwrite"):
            check_replaceable(path, ours, "a comparison", overwrite=overwrite)
    with pytest.raises(BadInputError, match="is a directory"):
        check_replaceable(tmp_path, ours, "a comparison", overwrite=overwrite)


def test_a_name_that_is_no_utf_8_is_escaped_in_a_text(tmp_path):
    write_text(tmp_path / "a.md", f"run {os.fsdecode(bytes([114, 255]))}, 3 µJ")
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "run r\\udcff, 3 µJ"
