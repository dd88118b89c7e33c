"""Fit device profiles to measured steps and kernels, and say how well a profile predicts."""
