"""Weights between Keras and the networks here: published files, files of Keras', and files for Keras."""

from pcamjax.weights.loading import find_weights, load, load_weights

__all__ = ["find_weights", "load", "load_weights"]
