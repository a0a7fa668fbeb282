"""The Lava backend. Only this package imports Lava; everything else of mksgn works without it.

Lava is archived upstream; 0.10.0 is its last release.
"""

# First of all: importing Lava fixes multiprocessing's start method, and raises where another
# library has done so before. The guard takes care of both.
import mksgn.deploy.lava.guard.runtime  # noqa: F401
