"""timm's DeiT-Ti, fine-tuned on a folder by a plain PyTorch loop that ends by the clock.

    python -m benchmarks.photos_timm FOLDER WEIGHTS --minutes=10 --seed=0

AdamW at 1e-4, batches of 32, flips and crops of 50 to 100 % of the area, and a rate that falls with
the cosine of the time that is spent. The last line is JSON: top1, steps, and the evaluation's
seconds.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZE, BATCH, RATE = 224, 32, 1e-4
# Before the end of the time, to evaluate in.
SPARE = 1.2


def as_tensor(image: Image.Image) -> torch.Tensor:
    """[3, height, width], normalised."""
    values = (np.asarray(image, np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)


def to_train(path: Path, rng: random.Random) -> torch.Tensor:
    """A random crop, resized, and mirrored half of the time."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    for _ in range(10):
        area, ratio = rng.uniform(0.5, 1) * width * height, rng.uniform(3 / 4, 4 / 3)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            break
    else:
        w, h = width, height
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    box = (left, top, left + w, top + h)
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return as_tensor(image)


def to_test(path: Path) -> torch.Tensor:
    """Short side 256, and the central 224 pixels."""
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    return as_tensor(image.crop((left, top, left + SIZE, top + SIZE)))


def accuracy(model: torch.nn.Module, files: list[tuple[Path, int]]) -> float:
    """Top-1 on the test images."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            logits = model(torch.stack([to_test(path) for path, _ in part]))
            right += int((logits.argmax(1) == torch.tensor([label for _, label in part])).sum())
    return right / len(files)


def main(folder: Path, weights: str, minutes: float, seed: int) -> None:
    """Trains until the time is up and evaluates."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    rng = random.Random(seed)
    classes = sorted(each.name for each in (folder / "train").iterdir())
    train, test = (
        [(p, i) for i, c in enumerate(classes) for p in sorted((folder / split / c).iterdir())]
        for split in ("train", "test")
    )
    model = timm.create_model("deit_tiny_patch16_224", num_classes=len(classes))
    arrays = {k: v for k, v in load_file(weights).items() if not k.startswith("head.")}
    lacking = model.load_state_dict(arrays, strict=False)
    assert not lacking.unexpected_keys and set(lacking.missing_keys) == {"head.weight", "head.bias"}
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    seconds, steps, a_step = minutes * 60, 0, 0.0
    order: list[int] = []
    while True:
        spent = time.perf_counter() - began
        # A test image takes about a third of a training image's time.
        if spent + SPARE * a_step * (1 + len(test) / BATCH / 3) > seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * min(1, spent / seconds))) / 2
        if len(order) < min(BATCH, len(train)):
            order += rng.sample(range(len(train)), len(train))
        part, order = order[:BATCH], order[BATCH:]
        images = torch.stack([to_train(train[i][0], rng) for i in part])
        model.train()
        logits = model(images)
        labels = torch.tensor([train[i][1] for i in part])
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        a_step = time.perf_counter() - began - spent
        print(f"step {steps}: loss {loss.item():.4f}, {BATCH / a_step:.1f} img/s", flush=True)
    began = time.perf_counter()
    top1 = accuracy(model, test)
    evaluation = time.perf_counter() - began
    print(json.dumps({"top1": top1, "steps": steps, "evaluation_seconds": evaluation}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
