"""Scaling laws: loss against parameters, tokens and experts, fitted with intervals; see README.md."""
