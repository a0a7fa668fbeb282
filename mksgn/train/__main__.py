"""`python -m mksgn.train` is mksgn-train."""

from mksgn.common.entry import train

train()
