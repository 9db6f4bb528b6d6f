"""Where records come from: folders, TFDS, and data sets that the package makes itself."""
