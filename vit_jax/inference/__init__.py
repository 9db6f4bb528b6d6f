"""A model at work: passes over data, prediction, preprocessing and export."""
