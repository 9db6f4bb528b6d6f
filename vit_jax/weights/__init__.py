"""Weight files: names, reading and writing, and fitting them to a model."""
