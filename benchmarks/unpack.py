"""Unpacks an .npz of images and labels into a folder: DIR/{train,test}/CLASS/NNNNN.png.

    python -m benchmarks.unpack FILE.npz DIR

The file holds train_images, train_labels, test_images and test_labels, images uint8 [n, height,
width], as Fashion-MNIST and MNIST are passed around.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main(file: str, folder: str) -> None:
    arrays = np.load(file)
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        for label in np.unique(labels):
            (Path(folder) / split / str(label)).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(Path(folder) / split / str(label) / f"{number:05}.png")
        print(f"{split}: {len(labels):,} images")


if __name__ == "__main__":
    main(*sys.argv[1:])
