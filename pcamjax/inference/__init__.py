"""A trained network and patches -> `Predictions`, the file that everything downstream is computed from."""
