"""The page about loss against parameters and tokens."""
