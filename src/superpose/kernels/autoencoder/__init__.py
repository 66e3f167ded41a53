"""Kernels that train sparse autoencoders on a CPU: what is off costs nothing."""
