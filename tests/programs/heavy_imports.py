"""Trains a step and prints which heavy libraries were asked for, installed or not.

python -m tests.programs.heavy_imports WORKDIR
"""

import sys
from typing import Any

from vit_jax.__main__ import main

# Others only look whether TensorFlow is installed.
HEAVY = ("torch", "timm", "transformers")


class Asked:
    """A finder that finds nothing and takes down what is looked for."""

    names: set[str] = set()  # noqa: RUF012 (one finder)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        del path, target
        if name in HEAVY:
            self.names.add(name)


if __name__ == "__main__":
    sys.meta_path.insert(0, Asked())
    command = ["train", "--config=configs/quickstart.py", f"--workdir={sys.argv[1]}"]
    command += ["--config.model.depth=1", "--config.total_steps=1", "--config.epochs=none"]
    command += ["--config.optimizer.warmup_steps=0", "--config.data.workers=0"]
    assert main([*command, "--config.evals=none"]) == 0
    print("asked:", *sorted(Asked.names))
