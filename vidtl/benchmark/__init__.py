"""Comparing the cost of models, ours and other people's, side by side in one run."""
