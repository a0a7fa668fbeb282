"""Second stage: model.pt → a quantised graph in the Neuromorphic Intermediate Representation → model.nir."""
