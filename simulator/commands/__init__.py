"""The commands, one file each: they parse and print."""
