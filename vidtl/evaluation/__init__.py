"""Evaluation and prediction: views of a video to one score per class, metrics, files and a page."""
