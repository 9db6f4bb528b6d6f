"""A run as a page: one HTML file with curves, scores, errors and data, that needs no network."""
