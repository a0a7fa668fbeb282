"""Node types by what they do, for everything that tells them apart."""

import nir

SPIKING = (nir.LIF, nir.IF, nir.CubaLIF)
GRADED = (nir.LI, nir.I, nir.CubaLI)  # these output their membrane potential
CURRENT_BASED = (nir.CubaLIF, nir.CubaLI)
