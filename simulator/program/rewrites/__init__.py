"""Rewrites of a layer's graph by the plan, one file each, named as in the trainer."""
