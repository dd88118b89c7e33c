"""Kernels under the names of ``Plan.implementation``; each file holds the implementations of one operation behind one signature."""
