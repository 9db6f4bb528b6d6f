"""Reads a run's batches as `train` does, and writes the parts that each process's devices hold.

    python -m tests.programs.read_batches --config=FILE --output=DIR --readings="0,0 3,2"

A reading is the number of data workers and the steps that are done before. Each process writes
`INDEX.npz`, whose keys are READING/STEP/NAME/FIRST_ROW.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from vit_jax.commands.processes import add_process_flags, join
from vit_jax.config import load_config
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import make_loader, prepare


def main() -> None:
    """Reads the command line, joins the other processes and does all readings."""
    parser = argparse.ArgumentParser()
    for name in ("--config", "--output", "--readings"):
        parser.add_argument(name)
    add_process_flags(parser)
    arguments, overrides = parser.parse_known_args()
    join(arguments)
    parts: dict[str, np.ndarray] = {}
    for reading in arguments.readings.split():
        workers, start = reading.split(",")
        values = load_config(arguments.config, [*overrides, f"--config.data.workers={workers}"])
        with make_loader(prepare(build(TrainConfig, values)), int(start)) as loader:
            for step, batch in enumerate(loader, int(start)):
                for name, array in batch.items():
                    for shard in array.addressable_shards:
                        key = f"{reading}/{step}/{name}/{shard.index[0].start or 0}"
                        parts[key] = np.asarray(shard.data)
    np.savez(Path(arguments.output) / f"{jax.process_index()}.npz", **parts)


if __name__ == "__main__":
    main()
