"""Speed as ratios inside one run: `python -m mksgn.deploy.benchmark`."""
