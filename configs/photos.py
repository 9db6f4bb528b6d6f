"""Fine-tuning on a folder of your own photographs, with choices made from them and the devices.

    python -m vit_jax train --config=configs/photos.py:./photos --workdir=runs/photos
    python -m vit_jax train --config=configs/photos.py:./photos,WEIGHTS --workdir=runs/photos

FOLDER is always a path: it has one folder for each class, or train and test (or val) with the
classes in each. WEIGHTS is a weight file, a finished run's directory, the name of a released file
or hf://ORG/NAME; `scratch` trains from scratch. Without it, the released file of the highest
published top-1 that this machine can train is downloaded; on a CPU, of those whose features of the
folder take less than a minute.

What is `auto` below is chosen when the run starts, printed with its reason and written to
config.json; --config.KEY=VALUE sets it instead. docs/train.md has the rules. On a CPU a linear
probe of the weights' features comes first, and fine-tuning starts from it and ends within
--max_minutes, 10 unless it is given.

Measured so far with DeiT-Ti on 300 photographs of five flowers: 82.0 % test top-1 with the probe,
89.3 % after ten minutes on two CPU cores (three seeds; benchmarks/results/photos.md).
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.data.sources.open import is_folder

SCRATCH = "scratch"


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "folder", weights="auto")
    return ConfigDict(
        {
            "init_from": None if chosen.weights == SCRATCH else chosen.weights,
            "init_head": "auto",
            "model": {"name": "auto", "image_size": "auto", "dtype": "auto"},
            "data": {
                "dataset": chosen.folder if is_folder(chosen.folder) else f"./{chosen.folder}",
                "train": "train",
                "batch_size": "auto",
                "workers": "auto",
                "sampling": "auto",
                "crop_area": (0.5, 1.0),
                "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
            },
            "optimizer": {
                "name": "adamw",
                "lr": "auto",
                "schedule": "cosine",
                "warmup_steps": "auto",
                "weight_decay": "auto",
                "clip_norm": 1.0,
                "layer_decay": "auto",
                "freeze": "auto",
                "micro_batches": "auto",
            },
            # A probe separates few images; this leaves the body something to learn.
            "label_smoothing": 0.1,
            "loss_weights": None,
            "total_steps": "auto",
            "max_minutes": "auto",
            "evals": {"test": {"split": "auto", "every_steps": "auto"}},
            "early_stop": "auto",
            "checkpoint": {"every_steps": "auto"},
            "log_every": "auto",
        }
    )
