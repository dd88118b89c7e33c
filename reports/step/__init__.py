"""The page of one training step: memory and time, predicted beside measured."""
