"""The command `python -m mksgn.deploy.benchmark`."""

from mksgn.deploy.benchmark.measure import main

main()
