"""mksgn/deploy/benchmark/memory: the peak is that of the process and of its children."""

import subprocess
import sys

from mksgn.deploy.benchmark.memory import Peak, peak_memory

SIZE = 64 << 20


def test_a_child_counts_and_the_peak_stays():
    alone = Peak()
    alone.sample()
    code = f"held = bytearray(b'x') * {SIZE}; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline()
        both = Peak()
        both.sample()
        child.communicate(b"\n")
    assert both.processes == alone.processes + 1
    assert both.pss > alone.pss + SIZE
    peak = both.pss
    both.sample()
    assert both.pss == peak


def test_the_block_is_sampled_until_it_ends():
    with peak_memory() as peak:
        while not peak.processes:
            pass
    assert peak.pss > 0
