"""Predict memory and time of one training step of a Mixture-of-Experts model on a fabric."""
