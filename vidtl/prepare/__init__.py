"""Knowing a data set before training on it: scanning, reporting, and copies that decode fast."""
