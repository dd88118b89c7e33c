"""Time of one step from the cost of its operations and the clocks of host, device and network."""
