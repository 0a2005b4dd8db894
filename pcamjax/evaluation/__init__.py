"""Labels and scores -> numbers. Nothing here needs a network, or JAX."""
