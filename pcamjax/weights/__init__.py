"""Weights between Keras and the networks here: published files, files of Keras', and files for Keras."""

from pcamjax.weights.export import export_keras
from pcamjax.weights.loading import find_weights, load, load_weights
from pcamjax.weights.published import fetch_weights

__all__ = ["export_keras", "fetch_weights", "find_weights", "load", "load_weights"]
