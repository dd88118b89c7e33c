"""What every package shares: specifications from YAML files, one-line errors, atomic files and the frame of a command line."""
