"""The page that says what a fabric's parameters do to training."""
