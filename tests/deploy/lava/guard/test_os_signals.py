"""mksgn/deploy/lava/guard/os_signals: a signal at every moment of holding signals back."""

import contextlib
import signal
import sys
from types import FrameType
from typing import Any

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")

from mksgn.deploy.lava.guard import os_signals
from tests.support.lava_guards import handlers


class HandlerError(Exception):
    pass


def interrupt(number: int, frame: FrameType | None) -> None:
    raise HandlerError(number)


def raised_at(instruction: int, number: int) -> bool | None:
    """Hold signals, and raise one before this bytecode instruction of os_signals and contextlib.

    Returns:
        Whether the handler's exception left the block; None if the block has fewer instructions.
    """
    rest = instruction

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal rest
        if frame.f_code.co_filename not in (os_signals.__file__, contextlib.__file__):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            rest -= 1
            if rest == -1:
                signal.raise_signal(number)
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        with os_signals.signals_held():
            pass
    except HandlerError:
        return True
    finally:
        sys.settrace(before)
    return False if rest < 0 else None


@pytest.mark.parametrize("number", os_signals.HELD)
def test_a_signal_at_any_instruction(number: int) -> None:
    """Its handler's exception leaves the block, and both handlers are restored."""
    instruction, lost, replaced = 0, [], []
    with handlers(signal.SIGINT, interrupt), handlers(signal.SIGTERM, interrupt):
        while (raised := raised_at(instruction, number)) is not None:
            if not raised:
                lost.append(instruction)
            for held in os_signals.HELD:
                if signal.signal(held, interrupt) is not interrupt:
                    replaced.append((instruction, held))
            instruction += 1
    assert instruction > 30
    assert (lost, replaced) == ([], [])
