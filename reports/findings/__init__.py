"""Dated entries, and the drawings that no page offers."""
