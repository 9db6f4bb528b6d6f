"""Reads batches with two workers, for ever. Prints `ready` after the first one.

python -m tests.programs.loader_forever IMAGE
"""

import sys
from pathlib import Path

import jax

from tests.data.listed import Listed
from vit_jax.data.batches import Chunks
from vit_jax.data.config import DataConfig
from vit_jax.data.images.transforms import make_transform
from vit_jax.data.loader import Loader, local_rows
from vit_jax.data.sources.records import Record
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding
from vit_jax.preprocessing import PreprocessingConfig


def main(file: str) -> None:
    sharding = batch_sharding(make_mesh(MeshConfig(), jax.devices()[:1]))
    source = Listed([Record(Path(file).read_bytes(), 0, "x")] * 32)
    size = (8, 8)
    transform = make_transform(size, PreprocessingConfig(), DataConfig("./x"))
    chunks = Chunks(source, transform, size, local_rows(8, sharding), 8, seed=0, shuffle=True)
    loader = Loader(chunks, sharding, start=0, stop=10**6, workers=2, on_error="stop")
    next(loader)
    print("ready", flush=True)
    while True:
        next(loader)


if __name__ == "__main__":
    main(*sys.argv[1:])
