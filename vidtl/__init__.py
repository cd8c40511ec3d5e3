"""vidtl: video classifiers built on ViViT and TokenLearner, from annotation file to metric."""

__version__ = "0.1.0"
