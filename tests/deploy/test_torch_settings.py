"""mksgn/deploy/torch_settings: what overlapping runs change is put back once, and forked processes do not wait."""

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch

from mksgn.deploy import compile_graph, run
from mksgn.deploy.kernels.population import fused_population
from mksgn.deploy.torch_settings import exact_sums, threads
from tests.support import graphs as net
from tests.support.programs import residual_chain, simple


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def overlapping(first: AbstractContextManager[None], second: AbstractContextManager[None]) -> Iterator[str]:
    """Enter the first block, then the second in another thread; leave the first before the second."""
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        with second:
            entered.set()
            leave.wait(20)
        left.set()

    with first:
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait(20)
        yield "both"
    yield "second"
    leave.set()
    thread.join()
    assert left.is_set()
    yield "none"


def test_sums_are_exact_until_the_last_of_several_runs_ends() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    try:
        seen = {when: (matmul.allow_tf32, cudnn.enabled) for when in overlapping(exact_sums(), exact_sums())}  # noqa: C420  (they change)
    finally:
        matmul.allow_tf32 = before
    assert seen == {"both": (False, False), "second": (False, False), "none": (True, True)}


@pytest.mark.usefixtures("two_threads")
def test_threads_are_put_back_by_overlapping_runs() -> None:
    """A thread that starts within another's block would take its one thread for the program's choice."""
    seen = {when: threads.number() for when in overlapping(threads.one(), threads.one())}
    assert seen == {"both": 2, "second": 2, "none": 2}
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


def emulated() -> float:
    program = compile_graph(net.chain(("x", net.inp(200)), ("d", net.linear(np.ones((200, 200)))), ("y", net.out(200))),
                            precision="float")  # fmt: skip
    return float(run(program, np.ones((64, 16, 200))).outputs["y"].sum())


@pytest.mark.usefixtures("two_threads")
def test_a_forked_pool_does_not_wait_for_its_parents_threads() -> None:
    wanted = emulated()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(emulated).get(60) == wanted
        assert pool.apply_async(torch.get_num_threads).get(60) == 1


class Replaced(dict[Any, Any]):
    """A cache in whose place another thread puts its own, as soon as something is in it."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name
        vars(owner)[name] = self

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        vars(self.owner)[self.name] = {}


def test_a_cache_that_another_thread_makes_too() -> None:
    """Python 3.12 and later lock no cached property: the last of several threads stores its value."""
    for program in (compile_graph(simple(), precision="float"), compile_graph(residual_chain())):
        shape = program.inputs[0].shape
        x = net.spikes(np.random.default_rng(0), 3, 4, *shape)
        wanted = run(program, x)
        Replaced(program, "_fan_outs")
        for projection in program.projections:
            for operator in getattr(projection, "operators", ()):
                if hasattr(operator, "on"):
                    Replaced(operator, "_tensors")
        for population in program.neurons:
            fused = fused_population(program, population, torch.device("cpu"))
            if fused is not None:
                Replaced(fused, "_plans")
        np.testing.assert_array_equal(run(program, x).outputs["y"], wanted.outputs["y"])


@pytest.mark.parametrize("number", [16])
def test_many_threads_on_one_program(number: int) -> None:
    """Its plans and caches are filled by all of them at once."""
    program, together = compile_graph(simple(), precision="float"), threading.Barrier(number)
    samples = [net.spikes(np.random.default_rng(seed), 3, 4, 2) for seed in range(number)]

    def one(x: np.ndarray) -> np.ndarray:
        together.wait(60)
        return run(program, x).outputs["y"]

    with ThreadPoolExecutor(number) as pool:
        found = list(pool.map(one, samples))
    again = compile_graph(simple(), precision="float")
    for x, outputs in zip(samples, found, strict=True):
        np.testing.assert_array_equal(outputs, run(again, x).outputs["y"])
