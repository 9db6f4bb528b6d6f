"""From encoded bytes to the pixels of a batch, on the host."""
