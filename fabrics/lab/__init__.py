"""A fabric emulated for real, at a fraction of its rates, with Linux network namespaces."""
