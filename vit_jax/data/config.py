"""The `data` section of a config: what is read for training, and how images are cropped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vit_jax.errors import UserError
from vit_jax.storage.cache import CACHE_GIB, Cache

# Inception's crop, as in the paper's pre-training and fine-tuning.
CROP_AREA = (0.05, 1.0)


@dataclass(frozen=True)
class AffineConfig:
    """Small random rotations, shifts and scalings, each uniform and in both directions."""

    rotate: float = 0.0
    """Largest rotation in degrees."""
    shift: float = 0.0
    """Largest shift as a share of the image's side."""
    scale: float = 0.0
    """Largest share by which the image grows or shrinks, below 1."""

    def __post_init__(self) -> None:
        if self.rotate < 0 or self.shift < 0 or not 0 <= self.scale < 1:
            raise UserError(
                f"rotate={self.rotate}, shift={self.shift}, scale={self.scale}: none may be "
                "negative, and scale must be below 1"
            )


@dataclass(frozen=True)
class RandAugmentConfig:
    """Random operations on the image after its crop; see `data.images.randaugment`."""

    layers: int = 2
    """Operations on each image, one after the other."""
    magnitude: int = 10
    """Strength of the operations, from 0 to 30; the original scale ends at 10."""
    original_faults: bool = False
    """Whether Contrast, Solarize and Posterize are as in the TensorFlow code of AugReg."""

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise UserError(
                f"layers must be at least 1, not {self.layers}; randaugment=none switches it off"
            )
        if not 0 <= self.magnitude <= 30:
            raise UserError(f"magnitude must be between 0 and 30, not {self.magnitude}")


@dataclass(frozen=True)
class ColorJitterConfig:
    """Random changes of colour, as torchvision's `ColorJitter`; see `data.images.color_jitter`."""

    brightness: float = 0.0
    """v: factors of brightness are drawn from [max(0, 1 - v), 1 + v]. 0: off."""
    contrast: float = 0.0
    """The same for contrast."""
    saturation: float = 0.0
    """The same for saturation."""
    hue: float = 0.0
    """h, at most 0.5: hue turns by a share of its circle drawn from [-h, h]. 0: off."""

    def __post_init__(self) -> None:
        values = (self.brightness, self.contrast, self.saturation, self.hue)
        if min(values) < 0 or self.hue > 0.5:
            raise UserError(
                f"brightness={self.brightness}, contrast={self.contrast}, "
                f"saturation={self.saturation}, hue={self.hue}: none may be negative, and hue must "
                "be at most 0.5"
            )
        if not any(values):
            raise UserError("color_jitter changes nothing: all its values are 0; leave it out")


@dataclass(frozen=True)
class DataConfig:
    """The training data, and how its images are cropped and augmented."""

    dataset: str
    """TFDS name, a folder of images or of tars (starts with `/`, `./`, `../` or `~`), a table of
    images (`.csv`, `.tsv`, `.jsonl`), a pattern of tars (`shards/train-{000..127}.tar`), or
    `KIND:REST` of a registered source."""
    train: str = "train"
    """Split to train on, in TFDS syntax, such as `train[:98%]`."""
    data_dir: str | None = None
    """Where TFDS data sets lie. None: TFDS's default, `~/tensorflow_datasets`."""
    cache_dir: str | None = None
    """Directory on a local disk that keeps what was read from shards, for data on a mount or in a
    bucket, and the copies of ArrayRecord in a bucket. Processes and runs may share it. None:
    everything is read from its place each time, and ArrayRecord is copied to the user's cache."""
    cache_gib: float = CACHE_GIB
    """Most GiB that `cache_dir` holds; the oldest make room for what is new. Copies of ArrayRecord
    count apart, and those in use stay."""
    test_fraction: float | None = None
    """Share of each class that becomes the split `test` of a folder or a table without splits.
    None: 0.1."""
    label: str | None = None
    """Feature of a TFDS data set that is the label: a ClassLabel or a sequence of them, such as
    `labels` or `objects/label`; a label that is computed, such as `count` of `clevr`; the column of
    a table; or the ending or JSON key of WebDataset samples. None: the one that TFDS names, the
    only one, or `cls`."""
    max_labels: int | None = None
    """Most labels of one record, for data whose records have any number of labels. None: 64, or the
    most that a row of a table has."""
    subset: int | None = None
    """Number of examples to train on, drawn at random. With one `subset_seed`, smaller subsets lie
    within larger ones. None: all."""
    subset_seed: int = 0
    """Seed that draws the subset."""
    batch_size: int = 512
    """Images in one step, over all devices."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """`shuffled`: each epoch holds every example once. `balanced`: every class is drawn equally
    often, so examples of small classes come again sooner."""
    workers: int = 2
    """Processes on each host that decode and crop. 0: threads of the main process."""
    crop: Literal["inception", "resize", "short_side", "none"] = "inception"
    """`inception`: a random box of `crop_area`, aspect 3/4 to 4/3, resized. `resize`: to a square
    of `crop_side`, then a random box. `short_side`: shorter side to `crop_side`, then a random box.
    `none`: resized to the training size."""
    crop_area: tuple[float, float] = CROP_AREA
    """Smallest and largest share of the image's area in the box of `crop=inception`."""
    crop_side: int | None = None
    """Pixels to which `crop=resize` or `short_side` resizes first. If training images are not
    square, of their shorter side."""
    flip: bool = True
    """Whether half of the images are mirrored left to right, at random."""
    affine: AffineConfig | None = None
    """Random rotation, shift and scale before the crop. None: off."""
    randaugment: RandAugmentConfig | None = None
    """RandAugment after the crop. None: off."""
    color_jitter: ColorJitterConfig | None = None
    """Random brightness, contrast, saturation and hue after the crop. None: off."""
    erase: float = 0.0
    """Probability that a random box of an image becomes noise. 0: off."""
    mixup: float = 0.0
    """a of Beta(a, a), from which each step draws the share of Mixup. 0: off. With `cutmix` on too,
    each step draws one of the two."""
    cutmix: float = 0.0
    """a of Beta(a, a), from which each step draws the area of CutMix's box. 0: off."""
    on_error: Literal["stop", "skip"] = "stop"
    """What an image that cannot be read does: `stop` ends the run, `skip` leaves the image out and
    counts it."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= 2**20:
            raise UserError(f"batch_size must be between 1 and 2**20, not {self.batch_size}")
        if self.max_labels is not None and not 1 <= self.max_labels <= 2**16:
            raise UserError(f"max_labels must be between 1 and 2**16, not {self.max_labels}")
        if self.cache_gib <= 0:
            raise UserError(f"cache_gib must be above 0, not {self.cache_gib}")
        if self.cache_dir is None and self.cache_gib != CACHE_GIB:
            raise UserError("cache_gib would be ignored: it needs cache_dir")
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

    def cache(self) -> Cache | None:
        """The cache that `cache_dir` names; it is made if missing.

        Raises:
          UserError: it cannot be written.
        """
        if self.cache_dir is None:
            return None
        return Cache(Path(self.cache_dir), int(self.cache_gib * 2**30))

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
