"""Benchmarks against other libraries and published figures; not installed, run as `python -m benchmarks.<name>`."""
