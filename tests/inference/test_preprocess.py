import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

import vit_jax
from tests.small_models import refusal
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.inference.preprocess import preprocess
from vit_jax.models.config import ModelConfig
from vit_jax.models.vit import ViT
from vit_jax.preprocessing import PreprocessingConfig, normalize

# ImageNet's, as torchvision has them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = PreprocessingConfig(
    MEAN, STD, resize="short_side", short_side=20, interpolation="bicubic", antialias=True
)
ORIENTATION, TURNED = 0x0112, 6  # The right column of the pixels is shown on top.


def model(size: tuple[int, int] = (16, 24), preprocessing: PreprocessingConfig = CROP) -> ViT:
    config = ModelConfig(
        "ViT-mu/8", image_size=size, num_classes=2, preprocessing=preprocessing
    ).completed()
    return nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0)))


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)


def levels(images: np.ndarray) -> np.ndarray:
    """Back to levels of 0 to 255."""
    return np.round((images * STD + MEAN) * 255).astype(int)


@pytest.mark.parametrize("preprocessing", [PreprocessingConfig(), CROP])
def test_opened_images_arrays_and_files_are_equal(
    preprocessing: PreprocessingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pixels = noise(37, 31)
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    images = [Image.open(file), pixels, file, str(file), "~/a.png", noise(20, 50)]
    found = vit_jax.preprocess(images, model(preprocessing=preprocessing))
    assert (found.shape, found.dtype) == ((6, 16, 24, 3), np.float32)
    for other in found[1:5]:
        np.testing.assert_array_equal(other, found[0])
    # What evaluation makes of the file's bytes, on the host and on the device.
    transform = EvalTransform((16, 24), preprocessing)
    expected = normalize(transform(file.read_bytes())[None], preprocessing)
    np.testing.assert_allclose(found[:1], expected, rtol=0, atol=1e-6)
    assert np.abs(found[5] - found[0]).max() > 0.5


def test_pixels_of_the_models_size_are_only_normalised() -> None:
    pixels = noise(16, 24)
    found = preprocess([pixels], model(preprocessing=dataclasses.replace(CROP, short_side=None)))
    np.testing.assert_allclose(found[0], (pixels / 255 - MEAN) / STD, rtol=0, atol=1e-6)


def test_a_crop_is_central_and_keeps_the_aspect() -> None:
    """Stripes of 10 pixels, of which a crop of 16 x 24 out of 20 x 60 shows the middle."""
    pixels = np.repeat(np.arange(0, 240, 40, dtype=np.uint8), 10)[None, :, None]
    found = preprocess([np.broadcast_to(pixels, (20, 60, 3))], model())
    np.testing.assert_array_equal(
        levels(found)[0, 3, :, 1], [40] * 2 + [80] * 10 + [120] * 10 + [160] * 2
    )


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 257 * 100, (100, 100, 100)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("LA", (100, 0), (100, 100, 100)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_other_kinds_of_pixels(
    mode: str, color: object, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    image = Image.new(mode, (30, 30), color)
    file = tmp_path / "a.tif"
    image.save(file)
    found = preprocess([image, Image.open(file), file], model())
    np.testing.assert_array_equal(levels(found), np.broadcast_to(expected, found.shape))


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((48, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file, exif=exif)
    exact = dataclasses.replace(CROP, short_side=None)
    found = levels(preprocess([Image.open(file), file], model((32, 48), exact)))
    upright = np.concatenate([np.zeros((16, 48, 3)), np.full((16, 48, 3), 255)])
    np.testing.assert_array_equal(found, [upright] * 2)


def test_the_given_images_stay_as_they_are() -> None:
    pixels = noise(40, 30)
    image = Image.fromarray(pixels).quantize(16)
    image.info["transparency"] = 3
    before = pixels.copy(), image.tobytes()
    preprocess([pixels, image], model())
    assert (image.mode, image.size, image.info["transparency"]) == ("P", (30, 40), 3)
    np.testing.assert_array_equal(pixels, before[0])
    assert image.tobytes() == before[1]


@pytest.mark.parametrize(
    "array",
    [
        noise(16, 24) / 255,
        noise(16, 24).astype(np.int32),
        noise(16, 24)[..., 0],
        noise(16, 24, channels=1),
        noise(16, 24, channels=4),
        noise(16, 24).transpose(2, 0, 1),
        noise(16, 24)[None],
        noise(16, 24)[:0],
    ],
)
def test_arrays_of_another_form_are_refused(array: np.ndarray) -> None:
    message = refusal(preprocess, [noise(16, 24), array], model())
    assert "must be uint8 [height, width, 3]" in message
    assert f"not {array.dtype} {list(array.shape)}" in message


def test_one_array_is_no_list_of_images() -> None:
    assert "not uint8 [24, 3]" in refusal(preprocess, noise(16, 24), model())
    # Several of one size are.
    stack = np.stack([noise(16, 24), noise(16, 24)])
    assert preprocess(stack, model()).shape == stack.shape


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    for name, reason in {
        "text.png": "not in a known format",
        "empty.png": "not in a known format",
        "absent.png": "No such file",
        ".": "a directory and not a file",
    }.items():
        message = refusal(preprocess, [tmp_path / name], model())
        assert message.startswith(f"{tmp_path / name}: ") and reason in message


def test_its_output_is_what_a_model_takes() -> None:
    default = model(preprocessing=PreprocessingConfig())
    images = preprocess([noise(50, 20)] * 3, default)
    assert nnx.eval_shape(lambda m, x: m(x), default, images).shape == (3, 2)
    # The paper's range, where nothing else is said.
    assert -1 <= images.min() < -0.8 and 0.8 < images.max() <= 1


def test_one_image_is_no_list(tmp_path: Path) -> None:
    noise_file = tmp_path / "noise.png"
    Image.fromarray(noise(20, 30)).save(noise_file)
    for image in (str(noise_file), noise_file, Image.open(noise_file)):
        assert "write [image]" in refusal(preprocess, image, model())


def test_an_opened_image_that_is_truncated_is_named_as_such(tmp_path: Path) -> None:
    file = tmp_path / "noise.png"
    Image.fromarray(noise(64, 64)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    assert "cannot read the image" in refusal(preprocess, [Image.open(file)], model())
