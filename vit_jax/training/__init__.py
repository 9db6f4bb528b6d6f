"""Training: optimizers, the step, the loop, and what it reports."""
