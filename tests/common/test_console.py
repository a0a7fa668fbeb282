"""How a command ends: its exit code, and one line on stderr where something was wrong."""

import enum
import errno
import signal
import sys
import warnings

import pytest
import torch
import typer

from mksgn.common import console
from mksgn.common.console import Json, fail, importing, new_app, output, print_json, run_app, wrote
from mksgn.common.errors import BadInputError, ListingError, MksgnError, MksgnWarning
from mksgn.common.tables import table


class Colour(str, enum.Enum):
    RED = "red"
    BLUE = "blue"


class DisagreeError(MksgnError):
    exit_code = 3


@pytest.fixture(autouse=True)
def _same_signals():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command whose body is `body`; returns exit code, stdout and stderr."""

    def with_body(body, *arguments):
        app = new_app("Paint a wall.")

        @app.command()
        def paint(wall: str = "north", colour: Colour = Colour.RED, coats: int = typer.Option(1, min=1)):
            """Paint it.

            Example: paint --colour red
            """
            return body()

        monkeypatch.setattr(sys, "argv", ["anything", *arguments])
        with pytest.raises(SystemExit) as caught:
            run_app(app, "paint")
        return caught.value.code, *capsys.readouterr()

    return with_body


def fails_with(error):
    def body():
        raise error

    return body


def test_a_command_that_is_done_ends_with_0_and_says_nothing(run):
    assert run(lambda: None) == (0, "", "")
    assert run(lambda: "a return value", "--colour", "blue") == (0, "", "")


def test_a_number_that_a_command_returns_is_its_exit_code(run):
    assert run(lambda: 5) == (5, "", "")


@pytest.mark.parametrize(
    ("error", "code"), [(BadInputError("clip-3: no joints; give it some"), 2), (DisagreeError("differ at step 2"), 3)]
)
def test_an_error_of_ours_is_one_line_with_its_own_code(run, error, code):
    assert run(fails_with(error)) == (code, "", f"paint: {error}\n")


def test_an_error_is_a_value_error_too():
    assert issubclass(BadInputError, ValueError)
    assert issubclass(BadInputError, MksgnError)
    assert BadInputError.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--couleur", "red"], "No such option: --couleur"),
        (["--colour", "green"], "Invalid value for '--colour'"),
        (["--coats", "many"], "Invalid value for '--coats'"),
        (["--coats", "0"], "Invalid value for '--coats'"),
        (["--wall"], "requires an argument"),
        (["left", "over"], "unexpected extra argument"),
    ],
)
def test_an_error_of_usage_is_one_line_and_2(run, arguments, said):
    code, out, err = run(lambda: None, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("paint: ")
    assert said in err
    assert err.count("\n") == 1
    assert not set("╭│╰─") & set(err)  # no panel
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interruption_is_130(run, error):
    code, out, err = run(fails_with(error))
    assert (code, out) == (130, "")
    assert err == "paint: interrupted\n"


def test_a_closed_pipe_is_silent(run):
    code, out, err = run(fails_with(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert code == 141
    assert (out, err) == ("", "")


HOSTILE = "a\x1b[2Jb\nmksgn: done\r\x9b\u202ec\udcff"
SHOWN = r"a\x1b[2Jb\nmksgn: done\r\x9b\u202ec\udcff"


@pytest.mark.parametrize(
    "error", [BadInputError(HOSTILE), OSError(errno.ENOENT, "none", HOSTILE), typer.BadParameter(HOSTILE)]
)
def test_what_a_terminal_would_act_on_is_escaped_in_an_error(run, error):
    code, out, err = run(fails_with(error))
    assert (code, out) == (2, "")
    assert SHOWN in err
    assert err.count("\n") == 1


def test_what_a_terminal_would_act_on_is_escaped_in_output(run):
    def body():
        warnings.warn(HOSTILE, MksgnWarning, stacklevel=1)
        output.print(table(HOSTILE, [HOSTILE], [[HOSTILE]]), soft_wrap=True)
        output.print(HOSTILE)

    code, out, err = run(body)
    assert (code, err) == (0, f"paint: {SHOWN}\n")
    assert not {"\x1b", "\r", "\x9b", "\u202e", "\udcff"} & set(out)
    assert SHOWN in out


def test_a_list_of_faults_has_a_line_each(run):
    assert run(fails_with(ListingError("one", ["\x1btwo"]))) == (2, "", "paint: one\n\\x1btwo\n")


@pytest.mark.parametrize(
    "body",
    [fails_with(MemoryError()), fails_with(MemoryError("32 TiB")), lambda: torch.empty(1 << 50, dtype=torch.float64)],
)
def test_an_allocation_that_fails_is_one_line(run, body):
    code, out, err = run(body)
    assert (code, out) == (2, "")
    assert err.startswith("paint: not enough memory (")
    assert err.endswith("; run fewer samples at once (--limit), or a smaller network\n")
    assert err.count("\n") == 1


def test_a_full_disk_behind_stdout_is_one_line(run, monkeypatch):
    monkeypatch.setattr(console, "written_out", lambda: OSError(errno.ENOSPC, "No space left on device"))
    assert run(lambda: None) == (2, "", "paint: standard output: No space left on device\n")


def test_typer_exit_keeps_its_code(run):
    assert run(fails_with(typer.Exit(4))) == (4, "", "")


def test_a_defect_of_ours_is_not_hidden(monkeypatch):
    """What is no error of the user's keeps its traceback."""
    app = new_app("Fail.")
    app.command()(fails_with(ZeroDivisionError("ours")))
    monkeypatch.setattr(sys, "argv", ["anything"])
    with pytest.raises(ZeroDivisionError, match="ours"):
        run_app(app, "broken")


def test_help_is_plain_and_shows_the_example(run):
    code, out, err = run(lambda: None, "--help")
    assert (code, err) == (0, "")
    assert "Usage: paint" in out
    assert "Example: paint --colour red" in out
    assert "--colour" in out
    assert not set("╭│╰") & set(out)


def test_fail_lets_a_traceback_follow(capsys):
    with pytest.raises(SystemExit) as caught:
        fail("paint", "process 'leaf' failed\nTraceback\n  line 3\n\n", 2)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "paint: process 'leaf' failed\nTraceback\n  line 3\n"


def test_fail_always_says_something(capsys):
    with pytest.raises(SystemExit):
        fail("paint", "  \n", 2)
    assert capsys.readouterr().err == "paint: failed\n"


def test_quiet_prints_paths_and_errors_alone(run, tmp_path):
    def body():
        warnings.warn("a remark", MksgnWarning, stacklevel=1)
        output.print("painting")
        wrote(tmp_path, ", in blue")

    assert run(body) == (0, f"painting\nwrote {tmp_path}, in blue\n", "paint: a remark\n")
    for option in ("-q", "--quiet"):
        assert run(body, option) == (0, f"{tmp_path}\n", "")
    assert run(fails_with(BadInputError("no wall")), "-q") == (2, "", "paint: no wall\n")
    assert run(body)[1].startswith("painting")  # the next command is not quiet


def test_json_has_stdout_for_itself(monkeypatch, capsys):
    app = new_app("Paint.")

    @app.command()
    def paint(as_json: Json = False) -> None:
        output.print("painting")
        wrote("a wall")
        if as_json:
            print_json({"wall": "é"})

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["paint", *arguments])
        with pytest.raises(SystemExit):
            run_app(app, "paint")
        return tuple(capsys.readouterr())

    assert call("--json") == ('{\n  "wall": "\\u00e9"\n}\n', "painting\nwrote a wall\n")
    assert call("--json", "-q") == ('{\n  "wall": "\\u00e9"\n}\n', "")
    assert call() == ("painting\nwrote a wall\n", "")


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("", 140), ("many", 140), ("0", 140)])
def test_what_is_no_terminal_has_the_columns_that_the_environment_says(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert console._piped_width() == width


@pytest.mark.parametrize(("chosen", "expected"), [(None, 1), ("2", 2)])
def test_a_commands_imports_leave_torch_with_one_thread(monkeypatch, chosen, expected):
    """Unless the user chose their number."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    before, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    try:
        torch.set_num_threads(2)
        with importing("paint"):
            assert signal.getsignal(signal.SIGINT) is not handler
        assert torch.get_num_threads() == expected
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        torch.set_num_threads(before)


def test_imports_that_fail_leave_ctrl_c_as_it_was():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(BadInputError), importing("paint"):
        raise BadInputError("a brush is missing")
    assert signal.getsignal(signal.SIGINT) is handler
