"""What a trained model does inside: where it looks, how it loads its experts, and what position does to its loss."""
