"""mksgn/common/replacement: a set of files is the old one or the new one, wherever its writer dies."""

import json
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mksgn.common import replacement
from mksgn.common.replacement import FileSet, draft, settle
from tests.support.refusals import refusal

FILES = FileSet("run", ("result", "more", "folder", "state"), results=("result",), resumable=("state",))
SHORT = FileSet("deployment", ("result", "more"), results=("result",))


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


def make(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


OLD = {"result": "old", "more": "old", "folder/a": "old", "folder/b": "old", "mine": "mine"}
NEW = {"result": "new", "folder/a": "new", "state": "new"}


def rewrite(folder, files=FILES, **options):
    with files.writing(folder, **options) as place:
        make(place, NEW)
    return place


def test_an_empty_folder_is_written_into(tmp_path):
    assert rewrite(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert content(tmp_path / "a" / "b") == NEW


def test_what_is_there_is_named_with_both_options(tmp_path):
    make(tmp_path, OLD)
    message = refusal(lambda: rewrite(tmp_path))
    assert message == (
        f"{tmp_path}: holds a finished run (result, more, folder); continue it with --resume, replace it with "
        "--overwrite, or choose another folder with -o"
    )
    assert content(tmp_path) == OLD
    assert "--resume" not in refusal(lambda: rewrite(tmp_path, SHORT))


def test_an_unfinished_one_is_not_lost_either(tmp_path):
    make(tmp_path, {"state": "hours"})
    assert "an unfinished run (state)" in refusal(lambda: rewrite(tmp_path))
    assert rewrite(tmp_path, resume=True) == tmp_path


def test_a_result_without_its_state_is_not_resumed(tmp_path):
    make(tmp_path, {"result": "old"})
    assert "without state, from which --resume continues" in refusal(lambda: rewrite(tmp_path, resume=True))


def test_the_new_ones_replace_the_old_as_a_whole(tmp_path):
    make(tmp_path, OLD)
    with FILES.writing(tmp_path, overwrite=True) as place:
        make(place, NEW)
        assert content(tmp_path) == OLD
    assert content(tmp_path) == {**NEW, "mine": "mine"}
    assert sorted(os.listdir(tmp_path)) == ["folder", "mine", "result", "state"]


def test_files_of_the_old_ones_go_too(tmp_path):
    make(tmp_path, {**OLD, "picture": "old"})
    rewrite(tmp_path, overwrite=True, old=lambda folder: ["picture"])
    assert content(tmp_path) == {**NEW, "mine": "mine"}


def fail(folder, files):
    with FILES.writing(folder, overwrite=True) as place:
        make(place, files)
        raise ZeroDivisionError


def test_after_an_error_a_draft_is_kept_if_it_can_be_resumed(tmp_path):
    make(tmp_path, OLD)
    for state in (False, True):
        with pytest.raises(ZeroDivisionError):
            fail(tmp_path, {"state": "half"} if state else {"more": "half"})
        assert content(tmp_path) == OLD
        assert draft(tmp_path, "run").exists() == state
    assert "an unfinished run" not in refusal(lambda: rewrite(tmp_path))
    with FILES.writing(tmp_path, resume=True) as place:
        assert content(place) == {"state": "half"}
        make(place, NEW)
    assert content(tmp_path) == {**NEW, "mine": "mine"}


def test_a_draft_that_is_there_alone_is_not_lost(tmp_path):
    make(draft(tmp_path, "run"), {"state": "half"})
    assert "an unfinished run (in .run.draft)" in refusal(lambda: rewrite(tmp_path))
    assert rewrite(tmp_path, overwrite=True) == tmp_path
    assert content(tmp_path) == NEW


def test_a_journal_of_other_places_is_refused(tmp_path):
    folder, victim = tmp_path / "run", tmp_path / "victim"
    victim.write_text("mine")
    for journal in (json.dumps(["../victim"]), json.dumps([str(victim)]), "[", json.dumps({"a": 1}), "[3]"):
        make(folder / ".run.complete", {"journal.json": journal})
        assert "remove" in refusal(lambda: settle(folder))
    assert victim.read_text() == "mine"


def test_links_in_the_place_of_a_draft_are_not_followed(tmp_path):
    folder, victim = tmp_path / "run", tmp_path / "victim"
    make(victim, {"a": "mine", "result": "mine"})
    make(folder, OLD)
    (folder / ".run.draft").symlink_to(victim)
    (folder / ".run.complete").symlink_to(victim)
    settle(folder)
    rewrite(folder, overwrite=True)
    assert content(folder) == {**NEW, "mine": "mine"}
    assert content(victim) == {"a": "mine", "result": "mine"}


class Killed(BaseException):
    pass


class Killer:
    """Ends at the n-th change of a file's name as SIGKILL would: no handler changes anything afterwards."""

    EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")

    def __init__(self):
        self.left = None
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.left is not None and event in self.EVENTS:
            self.left -= 1
            if self.left < 0:
                raise Killed


killer = Killer()
FILES_OF_A_SET = st.dictionaries(
    st.sampled_from(["result", "more", "state", "folder/a", "folder/b"]), st.sampled_from("xyz"), min_size=1
)


@settings(deadline=None)
@given(FILES_OF_A_SET, FILES_OF_A_SET, st.lists(st.integers(0, 30), min_size=1, max_size=4), st.booleans())
def test_killed_anywhere_and_anywhere_again_it_is_one_of_both(tmp_path_factory, old, new, moments, read):
    folder = tmp_path_factory.mktemp("set")
    make(folder, {**old, "mine": "mine"})

    def write():
        with FILES.writing(folder, overwrite=True) as place:
            make(place, new)

    before, after = {**old, "mine": "mine"}, {**new, "mine": "mine"}
    try:
        killer.left = moments[0]
        write()
    except Killed:
        pass
    for moment in moments[1:]:  # who reads next is killed as well
        try:
            killer.left = moment
            settle(folder)
        except Killed:
            pass
    killer.left = None
    settle(folder)
    assert content(folder) in (before, after)
    assert not list(folder.glob(".*.complete"))
    if read:
        with FILES.writing(folder, overwrite=True) as place:
            make(place, new)
        assert content(folder) == after
        assert sorted(folder.glob(".*")) == []


def test_every_kind_is_known_to_the_readers():
    from mksgn.bench.run_files import REPORT, RUN, SWEEP
    from mksgn.deploy.run_files import DEPLOYMENT
    from mksgn.train.resume import training_files

    kinds = {files.kind for files in (RUN, REPORT, SWEEP, DEPLOYMENT, training_files("model.pt"))}
    assert kinds == set(replacement.KINDS)
