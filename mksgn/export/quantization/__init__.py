"""Weights, biases and thresholds become Loihi's integers, once."""
