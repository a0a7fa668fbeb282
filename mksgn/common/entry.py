"""The four commands begin here: streams and Ctrl-C are in order before torch is imported, which takes seconds."""

import importlib
import signal

from mksgn.common.ending import end_at_next_interruption, open_streams


def train() -> None:
    _run("train")


def export() -> None:
    _run("export")


def deploy() -> None:
    _run("deploy")


def bench() -> None:
    _run("bench")


def _run(stage: str) -> None:
    open_streams()
    before = end_at_next_interruption(f"mksgn-{stage}", "interrupted")
    main = importlib.import_module(f"mksgn.{stage}.cli").main
    if before is not None:
        signal.signal(signal.SIGINT, before)
    main()
