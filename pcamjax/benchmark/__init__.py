"""How fast our networks are, beside Keras' and PyTorch's of the same layers, variables and data."""
