"""The names and shapes that weight files have elsewhere, one file a layout."""
