"""Known test sets: each a source of images and a rule from prediction to right or wrong."""
