"""Compiler passes, one per file; `mksgn.deploy.compiler` runs them in order and verifies the
program after each.

A pass takes a `Program` and returns a new one; it never changes its argument. The new program means
the same: in every execution its populations fire the same spikes at the same steps of the sample.
`ingest` is the first pass, and makes the program from a NIR graph.

Every program has unique names, projections whose ends exist and whose operators fit the shapes, and
populations in the order of evaluation. Some passes establish more, which holds from then on:

====================  =====================================================================================
pass                  establishes
====================  =====================================================================================
``ingest``            a float program: one projection per linear path, biases in the populations
``graph-branches``    graph convolutions that a file spells as branches are single `GraphConv` operators
``loops``             members of a recurrent loop form one contiguous execution group; no projection leads back
``host-split``        what lies before the first spikes of an analog input is on the host
``fixed-point``       weights and neurons of the chip are integers of Loihi's widths (fixed point only)
``balance``           arrival delays equal logical delays: branches of different length meet in the same step
====================  =====================================================================================

`schedule` is not a pass: it computes the time steps at which a balanced program handles each sample.
"""
