"""The Lava backend. Only this package imports Lava; everything else of mksgn works without it.

Lava is archived upstream; 0.10.0 is its last release.
"""

# First of all, because Lava must not be imported before. Its modules need a patch on Python 3.11 and
# later. They fix multiprocessing's start method, and raise where another library has done so: the
# guard takes care of that.
import mksgn.deploy.lava.patch  # noqa: I001
import mksgn.deploy.lava.guard.runtime  # noqa: F401
