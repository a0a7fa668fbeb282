"""Fused kernels of the fixed-point emulator on the CPU, compiled by numba at the first use and kept on disk."""
