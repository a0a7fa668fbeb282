"""A small grid for the tests of sweeps."""

GRID = """
schema: mksgn.sweep/1
data: synthetic
limit: 12
shard: 4
calibration: 8
axes:
  model: {tiny: model.pt}
  steps: [2, 4]
  threshold: [1.0, 1.2]
  bits: [8]
  chip: [loihi2, loihi1]
energy_models: [horowitz45-fp32, davies2018-loihi1]
"""
