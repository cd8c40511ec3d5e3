"""Annotation files of any format to records."""
