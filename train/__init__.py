"""First stage: skeleton clips → streams → a spiking student in PyTorch → model.pt."""

import os as _os

# Before torch loads its OpenMP: threads that wait by spinning lose a whole core to each other as soon as anything else runs on
# the machine. Measured on 2 cores with one busy neighbour, a training step of the demo: over 6 s spinning, 0.6 s sleeping.
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
