"""The page about how wrong a device profile is."""
