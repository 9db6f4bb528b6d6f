"""Fine-tunes weights on a folder of photographs with the package's trainer.

python examples/train_photos.py WEIGHTS photos/ runs/photos

The folder holds a folder of images for each class, or such folders in train/ and test/. WEIGHTS is
a released name or a file. The same command resumes a run that was stopped.
"""

import sys
from typing import Any

import vit_jax


def main(
    weights: str, folder: str, workdir: str, epochs: int = 5, batch_size: int = 16, workers: int = 2
) -> float:
    model = vit_jax.load_model(weights=weights).config
    config: dict[str, Any] = {
        "init_from": weights,
        "model": {"name": model.name, "image_size": model.image_size},
        "data": {"dataset": folder, "batch_size": batch_size, "workers": workers},
        "optimizer": {"lr": 1e-4, "warmup_steps": 5, "clip_norm": 1.0},
        "epochs": epochs,
        "evals": {"test": {"split": "test"}},
    }
    result = vit_jax.train(config, workdir)
    print(f"{result.weights} of step {result.step}: {result.scores}")
    return result.scores["test/top1"]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
