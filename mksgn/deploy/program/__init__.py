"""The compiled network as data, the arithmetic of its neurons and synapses, its invariants, and its
textual form.
"""
