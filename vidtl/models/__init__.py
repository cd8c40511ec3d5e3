"""Models: `build_model` from a configuration, `create_model` from a name, `load_model_directory` from files."""

from vidtl.models.base import VideoModel
from vidtl.models.create import create_model
from vidtl.models.directory import load_model_directory, save_model_directory
from vidtl.models.factory import build_model, list_models

__all__ = ["VideoModel", "build_model", "create_model", "list_models", "load_model_directory", "save_model_directory"]
