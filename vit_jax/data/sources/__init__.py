"""Where records come from: folders, TFDS, the package itself, and registered kinds."""
