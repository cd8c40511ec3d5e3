"""Metrics of video scores: one table (`table.METRICS`), the functions behind it, and the official Charades scorer.

Training, visualize and evaluation read names, titles and chance levels from the table. Importing it loads neither torch
nor torchmetrics.
"""

from vidtl.metrics.intervals import confidence_intervals
from vidtl.metrics.outcomes import Outcomes
from vidtl.metrics.table import METRICS, Metric, chance_levels, compute_metrics

__all__ = ["METRICS", "Metric", "Outcomes", "chance_levels", "compute_metrics", "confidence_intervals"]
