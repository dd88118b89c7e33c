"""Parallelism, applied to the model from outside: one file each, all read from the same ``Plan``."""
