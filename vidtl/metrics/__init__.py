"""Metrics of video scores: a table with titles and chance levels, and the official Charades scorer; no torch needed."""

from vidtl.metrics.intervals import confidence_intervals
from vidtl.metrics.outcomes import Outcomes
from vidtl.metrics.table import METRICS, Metric, chance_levels, compute_metrics

__all__ = ["METRICS", "Metric", "Outcomes", "chance_levels", "compute_metrics", "confidence_intervals"]
