"""Masked patch prediction: what is corrupted, what counts in the loss, and whole runs."""

import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.eight_devices import EightDevices
from tests.real_processes import start_process, wait_for_line
from tests.small_models import refusal
from tests.tiny_run import results
from vit_jax.__main__ import main
from vit_jax.data.config import DataConfig
from vit_jax.data.sources.open import open_source
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import init_params
from vit_jax.models.placement import OneDevice
from vit_jax.preprocessing import normalize
from vit_jax.training import masked_patches
from vit_jax.training.masked_patches import MaskedPatches, MaskedPatchesConfig, corrupt
from vit_jax.training.objectives import OWN, Batch, ObjectiveContext
from vit_jax.training.patch_targets import in_patches

SMALL = {"depth": 1, "width": 8, "mlp_dim": 8, "num_heads": 2}


def make(target: Any = "mean_colour", *, share: float = 0.5, **model: Any) -> MaskedPatches:
    """The objective of a small ViT with patches of 4 pixels and 5x5 of them."""
    values = {"name": "ViT-Ti/4", "image_size": 20, "num_classes": 0, **SMALL, **model}
    context = ObjectiveContext(
        ModelConfig(**values).completed(), OneDevice(), "softmax", 0.0, DataConfig(dataset="x")
    )
    return MaskedPatchesConfig(target=target, share=share).make(context)


def drawn(objective: MaskedPatches, images: np.ndarray) -> Batch:
    batch = {"images": jnp.asarray(images), "weights": jnp.ones(len(images))}
    first, second = jax.random.split(jax.random.key(1))
    return objective.prepare(batch, (first, second))


def test_half_of_the_patches_are_corrupted_in_three_ways() -> None:
    """Floor(25 / 2) of each image; of these 80, 10 and 10 % within four standard errors."""
    batch = drawn(make(), np.zeros((2000, 20, 20, 3), np.uint8))
    corrupted = np.asarray(batch["corrupted"])
    assert (corrupted.sum(axis=1) == 12).all()
    np.testing.assert_allclose(corrupted.mean(axis=0), 12 / 25, atol=4 * 0.5 / 2000**0.5)
    # An embedding of its number plus 1, and a mask token of -1, show what became of each patch.
    numbers = jnp.broadcast_to(jnp.arange(1.0, 26), (2000, 25))[..., None]
    found = np.asarray(corrupt(numbers, jnp.array([-1.0]), batch))[..., 0]
    before = np.asarray(numbers)[..., 0]
    assert (found == before)[~corrupted].all()
    masked, kept = found[corrupted] == -1, (found == before)[corrupted]
    for share, ways in ((0.8, masked), (0.1, kept), (0.1, ~masked & ~kept)):
        assert abs(ways.mean() - share) < 4 * (share * (1 - share) / 24_000) ** 0.5
    # Other patches are all the others of the image, alike.
    others = found[corrupted][~masked & ~kept]
    counts = np.bincount(others.astype(int), minlength=26)[1:]
    assert (abs(counts - len(others) / 25) < 5 * (len(others) / 25) ** 0.5).all()


@pytest.mark.parametrize("target", ["mean_colour", "downsized", "pixels"])
def test_the_loss_is_that_of_corrupted_patches(
    target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The targets are changed behind the model's back: it sees the same images."""
    objective = make(target)
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    batch = drawn(objective, images)
    params = init_params(make_config(), 0) | {OWN: objective.init(jax.random.key(0))}
    key = jax.random.key(2)
    losses = np.asarray(objective.losses(params, (), batch, key).losses)
    whole = in_patches

    def with_changed(hidden: bool) -> np.ndarray:
        def changed(*arguments: Any) -> Any:
            pixels = whole(*arguments)
            chosen = batch["corrupted"] == hidden
            return jnp.where(chosen[..., None, None, None], 255 - pixels, pixels)

        monkeypatch.setattr(masked_patches, "in_patches", changed)
        return np.asarray(objective.losses(params, (), batch, key).losses)

    np.testing.assert_array_equal(with_changed(hidden=False), losses)
    assert (with_changed(hidden=True) != losses).all()


def make_config() -> ModelConfig:
    return ModelConfig(name="ViT-Ti/4", image_size=20, num_classes=0, **SMALL).completed()


def test_an_untrained_head_of_zeros_has_a_loss_in_closed_form() -> None:
    """log 512 for colours; for pixels the mean square of the corrupted patches' values."""
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    for target in ("mean_colour", "downsized", "pixels"):
        objective = make(target)
        batch = drawn(objective, images)
        own = objective.init(jax.random.key(0))
        own["head"] = jax.tree.map(jnp.zeros_like, own["head"])
        params = init_params(make_config(), 0) | {OWN: own}
        losses = objective.losses(params, (), batch, jax.random.key(2)).losses
        if target != "pixels":
            np.testing.assert_allclose(losses, np.log(512), rtol=1e-6)
            continue
        preprocessing = make_config().preprocessing
        assert preprocessing is not None
        squares = normalize(np.asarray(batch["images"]), preprocessing) ** 2
        of_patches = squares.reshape(2, 5, 4, 5, 4, 3).mean(axis=(2, 4, 5)).reshape(2, 25)
        expected = [
            x[c].mean() for x, c in zip(of_patches, np.asarray(batch["corrupted"]), strict=True)
        ]
        np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_models_and_patches_that_do_not_fit() -> None:
    assert "needs patch tokens, and BiT-R50x1 has none" in refusal(
        make, name="BiT-R50x1", image_size=32, depth=None, width=None, mlp_dim=None, num_heads=None
    )
    assert "leaves no patch to corrupt among the 1 of an image" in refusal(make, image_size=4)
    assert "needs patches of at least 4 pixels" in refusal(make, "downsized", name="ViT-Ti/2")
    assert "share must be above 0 and at most 1, not 1.5" in refusal(make, share=1.5)


# Whole runs, on digits of 8x8 pixels with patches of 2x2.


def run(home: Path, name: str, *more: str) -> list[str]:
    return [
        *("train", "--config=configs/quickstart.py", "--config.objective.kind=masked_patches"),
        *("--config.model.depth=1", "--config.model.width=32", "--config.model.mlp_dim=32"),
        *("--config.model.num_heads=2", "--config.model.dropout=0.1", "--config.data.affine=none"),
        *("--config.model.num_classes=0", "--config.data.batch_size=64"),
        *("--config.optimizer.micro_batches=2", "--config.optimizer.warmup_steps=10"),
        *("--config.optimizer.average=0.9", "--config.evals=none", "--config.total_steps=100"),
        *(
            "--config.optimizer.lr=0.01",
            "--config.log_every=1",
            "--config.checkpoint.every_steps=20",
        ),
        *(f"--config.data.data_dir={home / 'data'}", f"--workdir={home / name}", *more),
    ]


def entropy_of_colours(data_dir: Path) -> float:
    """The loss of always answering with the frequencies of all patches' mean grey levels."""
    source = open_source("digits", "train", data_dir=str(data_dir))
    records = [source[index].image for index in range(len(source))]
    images = np.stack([np.asarray(Image.open(io.BytesIO(x)).convert("L"), float) for x in records])
    assert images.shape[1:] == (8, 8)
    levels = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)) // 32
    _, counts = np.unique(levels, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the data and the runs."""
    return tmp_path_factory.mktemp("masked_patches")


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """A run that nothing disturbed."""
    assert main(run(home, "whole")) == 0
    return home / "whole"


def test_it_learns_more_than_the_frequencies_of_colours(home: Path, whole: Path) -> None:
    metrics, _ = results(whole)
    losses = [line["train/loss"] for line in metrics if "train/loss" in line]
    assert len(losses) == 100
    frequencies = entropy_of_colours(home / "data")
    assert 1 < frequencies < 2.1 and losses[0] > 5  # log 512 = 6.2
    assert np.mean(losses[-5:]) < frequencies
    assert 0 < metrics[-2]["train/patch_accuracy"] <= 1
    # The mask token and the head are no part of the model, which has no head of its own.
    with np.load(whole / "weights.npz") as weights:
        assert not [name for name in weights if name.startswith(("head", "mask", "objective"))]


def test_the_run_is_fine_tuned(home: Path, whole: Path) -> None:
    more = ("--config.total_steps=2", "--config.optimizer.warmup_steps=0")
    command = run(home, "tuned", "--config.objective.kind=supervised", *more)
    command = [each for each in command if "num_classes" not in each]
    assert main([*command, f"--config.init_from={whole}"]) == 0
    with np.load(home / "tuned" / "weights.npz") as weights:
        assert weights["head/kernel"].shape == (32, 10)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(home: Path, whole: Path) -> None:
    process = start_process(run(home, "killed"))
    wait_for_line(process, "step 33/100")
    process.kill()
    process.communicate()
    assert main(run(home, "killed")) == 0
    assert results(home / "killed") == results(whole)


def test_eight_devices_equal_one(home: Path, whole: Path, eight_devices: EightDevices) -> None:
    assert eight_devices.run(main, run(home, "eight")) == 0
    (one, _), (eight, _) = results(whole), results(home / "eight")
    for key in ("train/loss", "train/patch_accuracy"):
        found, expected = ([line[key] for line in x if key in line][:12] for x in (eight, one))
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=key)


def test_images_without_labels(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for number in range(8):
        path = folder / ("deep/er" if number % 2 else ".") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (folder / "notes.txt").write_text("no image")
    data = [f"--config.data.dataset=images:{folder}", "--config.data.batch_size=8"]
    few = ["--config.total_steps=2", "--config.optimizer.warmup_steps=0"]
    assert main(run(home, "unlabelled", *data, *few)) == 0
    lines = (home / "unlabelled/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 2
    for change, message in (
        ("--config.objective.kind=supervised", "has no labels, and objective.kind=supervised"),
        (f"--config.data.dataset=images:{tmp_path / 'none'}", "name one of images"),
        ("--config.data.train=test", "has no split 'test', but train"),
    ):
        capsys.readouterr()
        assert main(run(home, "refused", *data, *few, change)) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_splits_of_images_without_labels(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/2.png", "val/3.png", "more/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    dataset = f"images:{tmp_path}"
    paths = {}
    for split in ("train", "val"):
        source = open_source(dataset, split)
        assert source.class_names == () and source[0].label == -1
        paths[split] = sorted(Path(source[i].name).name for i in range(len(source)))
    assert paths == {"train": ["1.png", "2.png"], "val": ["3.png"]}
    assert open_source(dataset, "train").fingerprint() != open_source(dataset, "val").fingerprint()
