"""RandAugment (arXiv 1909.13719) as in the TensorFlow code that AugReg was trained with.

The facts are from `autoaugment.py` in tensorflow/tpu and big_vision. Each layer draws one of 16
operations and always applies it, always at the same magnitude on a scale that ends at 10. An
operation with a direction draws that too. Pixels that come into view are grey. Magnitudes above
10, such as AugReg's 15 and 20, are extrapolated: if they were clipped, they would all be equal.

As in the original, a magnitude is not a strength in every operation. At 0 an enhancement takes
away nearly all colour, contrast, brightness or sharpness, and Solarize inverts. Magnitude 0 is
therefore far from doing nothing. Solarize and Posterize do less as the magnitude grows.

This differs from the original in the following. `original_faults` brings the first three back:

- Contrast moves pixels towards the image's mean grey or away from it. The original takes the
  image's area over 256 for that mean, which is always 196 at 224 pixels (big_vision's issue 109).
- From magnitude 10 on, Solarize's threshold is above all pixels. The original's wraps around at
  256: 10 and 20 invert the whole image, and 15 its brighter half (big_vision's issue 110).
- Posterize keeps 8 bits at most. In the original that number wraps around, so that it keeps 1 bit
  above magnitude 22.
- The largest shift is 100 pixels at 224 and half the side of Cutout 40. At other sizes both are the
  same shares of width and height. In the original they are the same pixels at every size.
- Pillow rounds where TensorFlow truncates: one level in the image that an enhancement blends in.
- ShearX and ShearY move some rows or columns by half a pixel exactly, where two source pixels are
  equally near. Pillow then takes another than TensorFlow in 1.4 to 2.9 % of the pixels.
- Horizontal flips come before RandAugment in the original, and after it here, on the device. By
  symmetry this changes the distribution of images only in which side ShearY leaves in place.
"""

from collections.abc import Callable

from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageOps

from vit_jax.data.config import RandAugmentConfig

# Takes an RGB image, the magnitude as a share of the scale, and a generator.
Operation = Callable[[Image.Image, float, Generator], Image.Image]

_SCALE = 10
_GREY = (128, 128, 128)
_LARGEST_SHIFT = 100 / 224
_CUTOUT_HALF_SIDE = 40 / 224


def rand_augment(image: Image.Image, rng: Generator, config: RandAugmentConfig) -> Image.Image:
    """Applies one operation for each layer to an RGB image of the training size."""
    operations = list((OPERATIONS | (FAULTS if config.original_faults else {})).values())
    for _ in range(config.layers):
        operation = operations[rng.integers(len(operations))]
        image = operation(image, config.magnitude / _SCALE, rng)
    return image


def _rotate(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return image.rotate(_signed(30 * level, rng), fillcolor=_GREY)


def _posterize(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    # TensorFlow keeps one bit where none would be left.
    return ImageOps.posterize(image, min(max(int(4 * level), 1), 8))


def _solarize(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return ImageOps.solarize(image, int(256 * level))


def _solarize_add(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    added = int(110 * level)
    return image.point([min(i + added, 255) if i < 128 else i for i in range(256)] * 3)


def _shear_x(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    shear = _signed(0.3 * level, rng)
    # The centres of the uppermost pixels stay in place.
    return _affine(image, (1, shear, -shear / 2, 0, 1, 0))


def _shear_y(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    shear = _signed(0.3 * level, rng)
    return _affine(image, (1, 0, 0, shear, 1, -shear / 2))


def _translate_x(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return _affine(image, (1, 0, _signed(_LARGEST_SHIFT * image.width * level, rng), 0, 1, 0))


def _translate_y(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, _signed(_LARGEST_SHIFT * image.height * level, rng)))


def _cutout(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    """Covers a box about any pixel; the part outside of the image is lost."""
    y, x = int(rng.integers(image.height)), int(rng.integers(image.width))
    half_height, half_width = (
        round(_CUTOUT_HALF_SIDE * side * level) for side in (image.height, image.width)
    )
    image = image.copy()
    image.paste(_GREY, (x - half_width, y - half_height, x + half_width, y + half_height))
    return image


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, level, rng: kind(image).enhance(_enhancement(level))


def _enhancement(level: float) -> float:
    """The factor of an enhancement; 1 leaves the image as it is."""
    return 1.8 * level + 0.1


def _signed(value: float, rng: Generator) -> float:
    return value if rng.integers(2) else -value


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Takes each pixel from the nearest one to where the matrix sends it."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=_GREY)


def _posterize_wrapped(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    bits = int(4 * level)
    return ImageOps.posterize(image, bits if 1 <= bits <= 8 else 1)


def _solarize_wrapped(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return ImageOps.solarize(image, int(256 * level) % 256)


def _contrast_of_area(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    grey = min(image.width * image.height // 256, 255)
    background = Image.new("RGB", image.size, (grey, grey, grey))
    return Image.blend(background, image, _enhancement(level))


# In the order of the original.
OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda image, level, rng: ImageOps.autocontrast(image),
    "Equalize": lambda image, level, rng: ImageOps.equalize(image),
    "Invert": lambda image, level, rng: ImageOps.invert(image),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Cutout": _cutout,
    "SolarizeAdd": _solarize_add,
}

# As in the original, where it differs.
FAULTS: dict[str, Operation] = {
    "Posterize": _posterize_wrapped,
    "Solarize": _solarize_wrapped,
    "Contrast": _contrast_of_area,
}
