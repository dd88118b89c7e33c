"""Fitting the simulator to measurements, validation on published runs, and scaling laws."""
