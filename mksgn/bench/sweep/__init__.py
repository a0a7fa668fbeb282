"""A grid of networks over one data set, spread over workers."""
