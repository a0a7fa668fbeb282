"""What numba keeps on disk is dropped when any file changes that is compiled into it."""

import hashlib
from pathlib import Path

from mksgn.deploy.kernels import synapses


def test_the_loops_name_the_files_that_are_inlined():
    folder = Path(synapses.__file__).parent
    sources = b"".join((folder / name).read_bytes() for name in ("attention.py", "vectors.py"))
    assert hashlib.sha256(sources).hexdigest()[:16] == synapses.INLINED
