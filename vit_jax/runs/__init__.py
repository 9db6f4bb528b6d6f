"""A run's directory: its config, versions, metrics and checkpoints."""
