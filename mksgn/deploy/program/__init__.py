"""The compiled network as data, and the arithmetic of its neurons and synapses."""
