"""`python -m mksgn.train` is mksgn-train."""

from mksgn.train.cli import main

main()
