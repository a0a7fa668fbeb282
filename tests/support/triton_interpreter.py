"""Triton's kernels on the CPU, in Triton's own interpreter."""

import os
import subprocess
import sys

import pytest


def assert_same(cases: str) -> None:
    """Run a program that compares a kernel with its reference and ends by printing "same", in a process of its own:
    Triton reads the setting when it is imported."""
    pytest.importorskip("triton", reason="Triton is not installed", minversion="3.0")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", cases], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip().endswith("same"), done.stdout + done.stderr
