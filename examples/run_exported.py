"""Runs a model that was exported for serving; needs numpy and Pillow, but not vit_jax.

python -m vit_jax convert --source=WEIGHTS --target=served.onnx --layout=onnx
python examples/run_exported.py served.onnx photo.jpg

A program that ends in .onnx needs onnxruntime, one that ends in .stablehlo (--layout=stablehlo)
jax. The conversion also writes served.json and served.images.zip, whose code decodes and resizes
images to the pixels that `python -m vit_jax predict` sees. An unreadable image gets a line.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def prepare(path: str, model: dict[str, Any], code: str = "served_images") -> np.ndarray:
    """A photograph as uint8 [height, width, 3], resized and cropped as NAME.json says.

    Args:
      path: of the image file.
      model: as NAME.json has it.
      code: the package that decodes and resizes, importable.
    """
    size, how = model["image_size"], model["preprocessing"]
    height, width = (size, size) if isinstance(size, int) else size
    image = import_module(f"{code}.decoding").decode(Path(path).read_bytes())

    def resize(image: Image.Image, height: int, width: int) -> Image.Image:
        if image.size == (width, height):
            return image
        if how["antialias"]:
            return image.resize((width, height), Image.Resampling[how["interpolation"].upper()])
        return import_module(f"{code}.bilinear").resize_bilinear(image, (height, width))

    if how["resize"] == "squash":
        return np.asarray(resize(image, height, width))
    enlarge = (how["short_side"] or min(height, width)) / min(height, width)
    scale = enlarge * max(height / image.height, width / image.width)
    # The small number undoes rounding noise, which could cost a pixel.
    image = resize(image, int(image.height * scale + 1e-6), int(image.width * scale + 1e-6))
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def plain(text: str) -> str:
    """A name on one line; what has effects on a terminal becomes \\uXXXX."""
    doubled = text.replace("\\", "\\\\")
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in doubled)


def load(program: str) -> Callable[[np.ndarray], np.ndarray]:
    """The program as a function from uint8 [batch, height, width, 3] to logits."""
    if program.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
        return lambda batch: session.run(["logits"], {"images": batch})[0]
    from jax import export

    exported = export.deserialize(bytearray(Path(program).read_bytes()))
    return lambda batch: np.asarray(exported.call(batch))


def probabilities(logits: np.ndarray, loss: str | None) -> np.ndarray:
    """[batch, classes] for [batch, classes]."""
    if loss == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def main(program: str, *images: str) -> None:
    sys.path.insert(0, str(Path(program).with_suffix(".images.zip")))
    description = json.loads(Path(program).with_suffix(".json").read_text())
    model, names = description["model"], description["class_names"]
    logits = load(program)
    for image in images:
        print(plain(image))
        try:
            batch = prepare(image, model)[None]
        except Exception as error:  # Decoders raise nearly anything; the next image may be sound.
            print(f"  {plain(' '.join(str(error).split()))}")
            continue
        (row,) = probabilities(logits(batch), description["loss"])
        for label in np.argsort(-row)[:5]:
            name = plain(names[label]) if names else ""
            print(f"  {row[label]:7.2%}  {label:>5}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
