"""mksgn/deploy/benchmark/memory: the peak is that of the process and of its children."""

import subprocess
import sys

from mksgn.deploy.benchmark.memory import peak_memory

SIZE = 64 << 20
# Run in a small process of its own: a test process's share of its libraries changes by megabytes while others start.
MEASURE = f"""
import subprocess, sys
from mksgn.deploy.benchmark.memory import Peak

alone = Peak()
alone.sample()
held = "held = bytearray(b'x') * {2 * SIZE}; print(flush=True); input()"
with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    assert child.stdout.readline()
    both = Peak()
    both.sample()
    child.communicate(b"\\n")
peak = both.pss
both.sample()
print(alone.processes, both.processes, alone.pss, peak, both.pss)
"""


def test_a_child_counts_and_the_peak_stays():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    processes_alone, processes, alone, peak, after = map(int, done.stdout.split())
    assert (processes_alone, processes) == (1, 2)
    assert alone < SIZE
    assert 2 * SIZE < peak < 3 * SIZE
    assert after == peak


def test_the_block_is_sampled_until_it_ends():
    with peak_memory() as peak:
        while not peak.processes:
            pass
    assert peak.pss > 0
