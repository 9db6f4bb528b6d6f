"""Runs a model that was exported for serving; needs jax, numpy and Pillow, but not vit_jax.

python -m vit_jax convert --source=WEIGHTS --target=served.stablehlo --layout=stablehlo
python examples/run_exported.py served.stablehlo photo.jpg
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from PIL import Image


def prepare(path: str, model: dict[str, Any]) -> np.ndarray:
    """A photograph as uint8 [height, width, 3], resized and cropped as NAME.json says."""
    size, how = model["image_size"], model["preprocessing"]
    height, width = (size, size) if isinstance(size, int) else size
    resample = Image.Resampling[how["interpolation"].upper()]
    image = Image.open(path).convert("RGB")
    if how["resize"] == "squash":
        return np.asarray(image.resize((width, height), resample))
    enlarge = (how["short_side"] or min(height, width)) / min(height, width)
    scale = enlarge * max(height / image.height, width / image.width)
    # The small number undoes rounding noise, which could cost a pixel.
    covering = int(image.width * scale + 1e-6), int(image.height * scale + 1e-6)
    image = image.resize(covering, resample)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def main(program: str, *images: str) -> None:
    description = json.loads(Path(program).with_suffix(".json").read_text())
    model, names = description["model"], description["class_names"]
    exported = export.deserialize(bytearray(Path(program).read_bytes()))
    batch = np.stack([prepare(image, model) for image in images])
    shares = jax.nn.sigmoid if description["loss"] == "sigmoid" else jax.nn.softmax
    probabilities = np.asarray(shares(exported.call(batch)))
    for image, row in zip(images, probabilities, strict=True):
        print(image)
        for label in np.argsort(-row)[:5]:
            print(f"  {row[label]:7.2%}  {label:>5}  {names[label] if names else ''}")


if __name__ == "__main__":
    main(*sys.argv[1:])
