"""Augmentation against torchvision's operations on tensors, which do without Pillow, and timm's."""

import random
from typing import Any

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target
from timm.data.random_erasing import RandomErasing
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torchvision.transforms import functional as peer

from vit_jax.data.images.erase import random_erase
from vit_jax.data.images.randaugment import OPERATIONS
from vit_jax.losses import cross_entropy
from vit_jax.training.mix import apply_mix, draw_mix

LEVELS = (0.3, 0.7, 1.0, 1.5, 2.0)


@pytest.fixture(scope="module")
def image() -> Any:
    y, x = np.mgrid[:96, :80]
    waves = (np.sin(x / 7) * np.cos(y / 9), np.sin((x + 2 * y) / 11), np.cos(x / 15 - y / 5))
    noise = np.random.default_rng(0).integers(-15, 16, (96, 80, 3))
    return (125 + 80 * np.stack(waves, axis=-1) + noise).astype(np.uint8)


def _tensor(image: Any) -> Any:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _distance(name: str, image: Any, level: Any, expected: Any) -> Any:
    found = np.asarray(OPERATIONS[name](Image.fromarray(image), level, np.random.default_rng(0)))
    return np.abs(found.astype(int) - expected.numpy().transpose(1, 2, 0).astype(int))


def test_operations_on_values(image: Any) -> None:
    tensor = _tensor(image)
    assert _distance("Invert", image, 1.0, peer.invert(tensor)).max() == 0
    assert _distance("Equalize", image, 1.0, peer.equalize(tensor)).max() == 0
    assert _distance("AutoContrast", image, 1.0, peer.autocontrast(tensor)).max() <= 1
    for level, bits, threshold in ((0.3, 1, 76), (0.7, 2, 179)):
        assert _distance("Posterize", image, level, peer.posterize(tensor, bits)).max() == 0
        assert _distance("Solarize", image, level, peer.solarize(tensor, threshold)).max() == 0
    for level, bits in ((1.0, 4), (1.5, 6), (2.0, 8)):
        assert _distance("Posterize", image, level, peer.posterize(tensor, bits)).max() == 0
        # Its threshold is above all values.
        assert _distance("Solarize", image, level, tensor).max() == 0


@pytest.mark.parametrize("level", LEVELS)
def test_enhancements(image: Any, level: Any) -> None:
    factor = 0.1 + 1.8 * level
    for name, adjust in (
        ("Color", peer.adjust_saturation),
        ("Contrast", peer.adjust_contrast),
        ("Brightness", peer.adjust_brightness),
        ("Sharpness", peer.adjust_sharpness),
    ):
        distance = _distance(name, image, level, adjust(_tensor(image), factor))
        # One level of rounding in what is blended in, and one in the blend.
        assert distance.max() <= 1 + abs(1 - factor), name


@pytest.mark.parametrize("level", LEVELS)
def test_rotation(image: Any, level: Any) -> None:
    distances = []
    for sign in (1, -1):
        turned = peer.rotate(_tensor(image), 30 * level * sign, fill=[128, 128, 128])
        distances.append((_distance("Rotate", image, level, turned) > 0).any(axis=-1).mean())
    # But for positions half way between two pixels, where all depends on rounding.
    assert min(distances) < 5e-3 < max(distances)


def _pair_of_rows() -> Any:
    """Each is the other's partner, as at timm, whose partner is the row at the other end."""
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.integers(0, 256, (2, 6, 5, 3), np.uint8),
        "labels": np.array([3, 1], np.int32),
        "weights": np.ones(2, np.float32),
    }
    paired = draw_mix(jax.random.key(0), batch, mixup=0.8, cutmix=0.0)
    return paired, float(paired["share"][0])


def test_images_are_mixed_as_timms() -> None:
    paired, share = _pair_of_rows()
    images = torch.from_numpy(np.array(paired["images"])).float()
    np.testing.assert_allclose(
        apply_mix(paired), images * share + images.flip(0) * (1 - share), atol=1e-4
    )


@pytest.mark.parametrize(("loss", "smoothing"), [("softmax", 0.1), ("sigmoid", 0.0)])
def test_the_loss_is_that_of_mixed_targets(loss: Any, smoothing: Any) -> None:
    paired, share = _pair_of_rows()
    logits = np.random.default_rng(1).normal(size=(2, 7)).astype(np.float32)
    own, partners = (
        cross_entropy(logits, paired[key], loss, smoothing) for key in ("labels", "partner_labels")
    )
    targets = mixup_target(torch.tensor([3, 1]), 7, share, smoothing)
    if loss == "softmax":
        expected = SoftTargetCrossEntropy()(torch.from_numpy(logits), targets)
    else:
        expected = BinaryCrossEntropy(smoothing=0, sum_classes=True)(
            torch.from_numpy(logits), targets
        )
    np.testing.assert_allclose((share * own + (1 - share) * partners).mean(), expected, rtol=1e-5)


def test_cutmix_shares_are_distributed_as_timms() -> None:
    images = {"images": np.zeros((2, 40, 56, 3)), "labels": np.zeros(2), "weights": np.ones(2)}
    keys = jax.random.split(jax.random.key(0), 3000)
    draw = jax.jit(jax.vmap(lambda key: draw_mix(key, images, mixup=0.0, cutmix=1.0)["share"][0]))
    np.random.seed(0)
    drawn = [cutmix_bbox_and_lam((40, 56), np.random.beta(1, 1))[1] for _ in range(3000)]
    assert ks_2samp(np.asarray(draw(keys)), drawn).pvalue > 0.001


def test_erased_boxes_are_distributed_as_timms() -> None:
    random.seed(0)
    eraser, rng = RandomErasing(probability=1.0, device="cpu"), np.random.default_rng(0)
    boxes: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(1500):
        ours = random_erase(np.full((48, 64, 3), 7, np.uint8), rng, 1.0) != 7
        theirs = eraser(torch.ones(3, 48, 64)).numpy().transpose(1, 2, 0) != 1
        for erased, kept in zip((ours, theirs), boxes, strict=True):
            rows, columns = (np.flatnonzero(erased.any(axis=axes)) for axes in ((1, 2), (0, 2)))
            kept.append([rows[0], rows[-1], columns[0], columns[-1], erased.any(axis=-1).sum()])
    for ours, theirs in zip(*(np.array(kept).T for kept in boxes), strict=True):
        assert ks_2samp(ours, theirs).pvalue > 0.001
