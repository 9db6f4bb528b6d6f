"""Comparisons and measured runs; each module says how it is called."""
