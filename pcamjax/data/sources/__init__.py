"""One module for each layout in which patches come; each has an `open_<layout>` that returns a `Source`."""
