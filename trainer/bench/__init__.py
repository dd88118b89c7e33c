"""Kernels against the roofline and float64; all that calibration fits; whole steps against other implementations."""
