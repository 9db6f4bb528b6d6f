"""Settings of every test process and of the processes that tests start."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile much and compute little.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
