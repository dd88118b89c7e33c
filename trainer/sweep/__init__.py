"""Grids of real training runs, one row each in a run table."""
