"""Metrics of video scores."""
