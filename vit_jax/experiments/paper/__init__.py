"""Published tables beside the results of our own runs."""
