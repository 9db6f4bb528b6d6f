"""Prepares ImageNet-21k in shards that are small, so that a kill finds some of them finished.

python -m tests.programs.prepare_shards ARCHIVES DATA_DIR WORKERS
"""

import sys

from vit_jax.data.preparation.prepare import prepare


def main(archives: str, data_dir: str, workers: str) -> None:
    prepare("imagenet21k", data_dir, archives=archives, workers=int(workers), shard_bytes=20_000)


if __name__ == "__main__":
    main(*sys.argv[1:])
