"""The networks of other frameworks. Each module imports its framework, which the core does without."""
