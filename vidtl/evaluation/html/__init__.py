"""The evaluation as one HTML file: read without a network or another file, inert whatever the names in it are."""

from vidtl.evaluation.html.examples import example_indices
from vidtl.evaluation.html.page import PAGE, remove_page, write_page
from vidtl.evaluation.html.pictures import draw_pictures
from vidtl.evaluation.html.saved import read_evaluation

__all__ = ["PAGE", "draw_pictures", "example_indices", "read_evaluation", "remove_page", "write_page"]
