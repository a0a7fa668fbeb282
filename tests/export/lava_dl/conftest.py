"""netx, for tests that compare with it."""

import pytest

from tests.support.netx import run_netx


@pytest.fixture(scope="module")
def netx():
    pytest.importorskip("lava.lib.dl.netx", reason="lava-dl 0.6.0 needs Python 3.10")
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a leaf that uses torch hangs otherwise (LAVA.md)
    yield run_netx
    torch.set_num_threads(threads)
