"""Lava in interpreters of other kinds: spawned workers, a Dask worker, scripts without a file or a main guard."""

import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lava", reason="lava-nc is not installed: make setup")

from mksgn.deploy import compile_graph, run
from tests.support.graphs import spikes
from tests.support.paths import ROOT
from tests.support.programs import simple

WALL_S = 300  # a fresh interpreter on a busy machine

# what a user types: at the top level, without `if __name__ == "__main__"`
SCRIPT = f"""
import json, sys
sys.path[:0] = {[str(ROOT), *(p for p in sys.path if p)]!r}
from tests.deploy.lava import test_anywhere
print(json.dumps(test_anywhere.trains("lava")))
"""


def trains(backend: str = "lava") -> dict[str, list]:
    x = spikes(np.random.default_rng(0), 3, 4, 2)
    execution = run(compile_graph(simple(), precision="float"), x, backend=backend)
    return {name: train.astype(int).tolist() for name, train in execution.spikes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["-c", "stdin", "file", "spawn first"])
def test_scripts(how: str, tmp_path: Path) -> None:
    code, given = SCRIPT, None
    command = [sys.executable]
    if how == "spawn first":  # for the program's own processes
        code = "import multiprocessing; multiprocessing.set_start_method('spawn')\n" + code
    if how == "stdin":
        given = code
    elif how == "file":
        (tmp_path / "script.py").write_text(code)
        command.append(str(tmp_path / "script.py"))
    else:
        command += ["-c", code]
    process = subprocess.run(command, input=given, capture_output=True, text=True, timeout=WALL_S, check=False)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == trains("emulator")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pool_of_other_interpreters(method: str) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(trains).result(WALL_S) == trains("emulator")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, True], ids=["threads", "nanny"])
def test_a_dask_worker(processes: bool) -> None:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": processes, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        found = client.gather(client.map(trains, ["lava"] * 2, pure=False))
    assert found == [trains("emulator")] * 2


@pytest.mark.slow
def test_a_notebook() -> None:
    manager = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed")
    pytest.importorskip("ipykernel")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        printed: list[str] = []

        def collect(message: dict[str, Any]) -> None:
            if message["content"].get("name") == "stdout":
                printed.append(message["content"]["text"])

        reply = client.execute_interactive(SCRIPT, timeout=WALL_S, output_hook=collect)
        assert reply["content"]["status"] == "ok", reply["content"]
        assert json.loads("".join(printed)) == trains("emulator")
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
