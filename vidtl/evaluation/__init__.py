"""Exact evaluation: logits of all views of a video to one score per class, to metrics, to files."""
