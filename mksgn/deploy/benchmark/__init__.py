"""Speed, measured as ratios within one run: `python -m mksgn.deploy.benchmark`."""
