"""What others would run on the same shapes: the yardsticks of the training suite."""
