"""Preparation of a data set before training: scan, manifest, report, and copies that decode fast."""
