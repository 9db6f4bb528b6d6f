"""As typed into a notebook or given on standard input: a source of the main module, and workers.

Prints the label of each row of two batches, once.
"""

import sys

import numpy as np

from vit_jax.data.batches import Chunks
from vit_jax.data.loader import Loader, local_rows
from vit_jax.data.sources.records import Record
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding


class Numbers:
    name, class_names, max_labels = "numbers", ("even", "odd"), None

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Record:
        return Record(bytes([index]), index % 2, f"numbers[{index}]")

    def fingerprint(self) -> str:
        return self.name


def transform(data: bytes, rng: np.random.Generator) -> np.ndarray:
    return np.full((2, 2, 3), data[0], np.uint8)


sharding = batch_sharding(make_mesh(MeshConfig()))
chunks = Chunks(Numbers(), transform, (2, 2), local_rows(4, sharding), 4, seed=0, shuffle=False)
with Loader(chunks, sharding, start=0, stop=2, workers=1, on_error="stop") as loader:
    found = [np.asarray(batch["labels"]).tolist() for batch in loader]
print(found)
sys.stdout.flush()
