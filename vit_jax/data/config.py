"""The `data` section of a config: what is read for training, and how images are cropped."""

from dataclasses import dataclass
from typing import Literal

from vit_jax.errors import UserError

# Of the paper's pre-training and fine-tuning (Inception's crop).
CROP_AREA = (0.05, 1.0)


@dataclass(frozen=True)
class AffineConfig:
    """Small random rotations, shifts and scalings, each drawn uniformly in both directions."""

    # Degrees.
    rotate: float = 0.0
    # Share of the image's side.
    shift: float = 0.0
    # Share by which the image grows or shrinks.
    scale: float = 0.0

    def __post_init__(self) -> None:
        if self.rotate < 0 or self.shift < 0 or not 0 <= self.scale < 1:
            raise UserError(
                f"rotate={self.rotate}, shift={self.shift}, scale={self.scale}: none may be "
                "negative, and scale must be below 1"
            )


@dataclass(frozen=True)
class RandAugmentConfig:
    """Random operations on the image after its crop: see `data.images.randaugment`."""

    layers: int = 2
    magnitude: int = 10
    # Contrast, Solarize and Posterize as in the TensorFlow code, which AugReg was trained with.
    original_faults: bool = False

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise UserError(
                f"layers must be at least 1, not {self.layers}; randaugment=None is off"
            )
        if not 0 <= self.magnitude <= 30:
            raise UserError(f"magnitude must be between 0 and 30, not {self.magnitude}")


@dataclass(frozen=True)
class DataConfig:
    """Training data.

    `dataset` is a TFDS name, or a folder of images when it starts with `/`, `./`, `../` or `~`.
    `train` is a split in TFDS syntax, such as `train[:98%]`.
    """

    dataset: str
    train: str = "train"
    # Where TFDS data sets lie; None is TFDS's own default.
    data_dir: str | None = None
    # Share of every class that becomes `test` where a folder has no splits; None is 0.1.
    test_fraction: float | None = None
    # Which feature of a TFDS data set is the label, a ClassLabel or a sequence of them, such as
    # `labels` or `objects/label`; None is the one that TFDS names, or the only one.
    label: str | None = None
    # Of data whose records have any number of labels, the most that one may have; None is 64.
    max_labels: int | None = None
    # Trains on so many examples of the split, drawn by a seed of their own. Of one seed, the
    # smaller subsets lie within the larger ones.
    subset: int | None = None
    subset_seed: int = 0
    batch_size: int = 512
    # Worker processes that decode and crop; 0 does it in threads of the main process.
    workers: int = 2
    # inception: a random box of `crop_area` of the image and of aspect 3/4 to 4/3, resized. The
    # others resize first: resize to a square of `crop_side`, short_side to this shorter side, both
    # for a random box of the training size; none to the training size.
    crop: Literal["inception", "resize", "short_side", "none"] = "inception"
    crop_area: tuple[float, float] = CROP_AREA
    # Pixels; for training images that are not square, of their shorter side.
    crop_side: int | None = None
    flip: bool = True
    affine: AffineConfig | None = None
    randaugment: RandAugmentConfig | None = None
    # Probability that a box of an image becomes noise: see `data.images.erase`.
    erase: float = 0.0
    # Of Beta(a, a), from which each step draws how it blends its rows; 0 is off (`training.mix`).
    # With both on, each step draws one of the two.
    mixup: float = 0.0
    cutmix: float = 0.0
    # What an image that cannot be read does: end the run, or count as a row of weight 0.
    on_error: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= 2**20:
            raise UserError(f"batch_size must be between 1 and 2**20, not {self.batch_size}")
        if self.max_labels is not None and not 1 <= self.max_labels <= 2**16:
            raise UserError(f"max_labels must be between 1 and 2**16, not {self.max_labels}")
        if self.subset is not None and self.subset < 1:
            raise UserError(f"subset must be at least 1, not {self.subset}")
        if not 0 <= self.subset_seed < 2**32:
            raise UserError(f"subset_seed must be between 0 and 2**32 - 1, not {self.subset_seed}")
        if self.subset is None and self.subset_seed:
            raise UserError("subset_seed would be ignored: it needs subset")
        if self.workers < 0:
            raise UserError(f"workers must not be negative, not {self.workers}")
        self._check_crop()
        self._check_mixing()
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            raise UserError(f"test_fraction must be between 0 and 1, not {self.test_fraction}")

    def _check_crop(self) -> None:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise UserError(f"crop_area must be 0 < low <= high <= 1, not {self.crop_area}")
        if self.crop != "inception" and self.crop_area != CROP_AREA:
            raise UserError("crop_area would be ignored: it needs crop='inception'")
        resizes = self.crop in ("resize", "short_side")
        if resizes and self.crop_side is None:
            raise UserError(f"crop={self.crop!r} needs crop_side, in pixels")
        if not resizes and self.crop_side is not None:
            raise UserError("crop_side would be ignored: it needs crop='resize' or 'short_side'")

    def _check_mixing(self) -> None:
        if not 0 <= self.erase <= 1:
            raise UserError(f"erase must be a probability, from 0 to 1, not {self.erase}")
        if self.mixup < 0 or self.cutmix < 0:
            raise UserError(
                f"mixup={self.mixup}, cutmix={self.cutmix}: neither may be negative; 0 is off"
            )
        if self.batch_size == 1 and (self.mixup or self.cutmix):
            raise UserError("mixup and cutmix would be ignored: they need batch_size above 1")
