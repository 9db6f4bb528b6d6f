"""Writes data sets in the form in which training reads them."""
