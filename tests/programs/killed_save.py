"""Saves a checkpoint in the given directory, begins a second one and kills itself."""

import os
import signal
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints

if __name__ == "__main__":
    checkpoints = Checkpoints(Path(sys.argv[1]), CheckpointConfig())
    state = {"w": jnp.asarray(np.random.default_rng(0).random((8, 2**20), np.float32))}
    checkpoints.save(1, state)
    checkpoints.wait()
    checkpoints.save(2, state)
    os.kill(os.getpid(), signal.SIGKILL)
