"""How fast the devices train and predict, how fast images are read, and what fits."""
