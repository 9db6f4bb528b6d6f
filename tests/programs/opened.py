"""Opens data sets, and imports neither TensorFlow nor JAX for it. Prints nothing.

python -m tests.programs.opened DATA_DIR DATASET...
"""

import sys

from vit_jax.data.sources.open import open_source


def main(data_dir: str, *datasets: str) -> None:
    assert "tensorflow_datasets" not in sys.modules
    for dataset in datasets:
        source = open_source(dataset, "train[:2]", data_dir=data_dir)
        assert len(source) == 2 and source[1].image
    assert "tensorflow" not in sys.modules
    assert "jax" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
