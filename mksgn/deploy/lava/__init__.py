"""The Lava backend. Only this package imports Lava; everything else of mksgn works without it.

Lava is archived upstream; 0.10.0 is its last release.
"""

# First of all, because Lava must not be imported before these. Its modules need a patch on Python
# 3.11 and later. They set multiprocessing's start method, and raise if another library has already
# set it: the guard takes care of that.
import mksgn.deploy.lava.patch  # noqa: I001
import mksgn.deploy.lava.guard.runtime  # noqa: F401
