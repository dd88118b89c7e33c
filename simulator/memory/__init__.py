"""Memory of one step from the beginnings and ends of its storages."""
