"""The NIR graph as data: our two nodes, reading and writing files, flattening, and what its nodes say."""
