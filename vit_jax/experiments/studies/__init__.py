"""Studies: variants of a training, several seeds of each, and what the paper says of them."""
