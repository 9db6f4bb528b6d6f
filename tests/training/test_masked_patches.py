"""An objective in one file: mean colours of masked patches (arXiv 2010.11929, appendix B.1.2).

Half of the patch embeddings of each image are corrupted before positions are added: replaced by a
mask token (80%) or by another patch's embedding (10%), or left as they are (10%). A linear head of
the objective's own predicts the mean colour of each of them; the loss is the squared error.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from PIL import Image

from tests.eight_devices import EightDevices
from tests.real_processes import start_process, wait_for_line
from tests.tiny_run import results
from vit_jax.__main__ import main
from vit_jax.data.sources.open import open_source
from vit_jax.models.functional import Params, apply_part
from vit_jax.parameters import Parameter, Table, dense, nested
from vit_jax.preprocessing import normalize
from vit_jax.training.objectives import (
    Batch,
    Examples,
    ObjectiveConfig,
    ObjectiveContext,
    split_params,
)


class MaskedPatches:
    """Predicts the mean colours of corrupted patches."""

    def __init__(self, context: ObjectiveContext, share: float) -> None:
        self.parameters: Table = {
            "mask": Parameter(("width",), "embedding", "token"),
            **nested("head", dense(("width",), ("channels",), "head")),
        }
        self.fixed: Any = ()
        self.fixed_digest: str | None = None
        self._model, self._placement = context.model, context.placement
        rows, columns = context.model.grid
        self._patches, self._corrupted = rows * columns, round(share * rows * columns)
        parts = ("patches", "tokens", "encode")
        self._to_patches, self._to_tokens, self._encode = (
            apply_part(context.model, part) for part in parts
        )

    def init(self, key: Array) -> Params:
        width = self._model.size.width
        mask_key, head_key = jax.random.split(key)
        return {
            "mask": 0.02 * jax.random.normal(mask_key, (width,)),
            "head": {
                "kernel": 0.02 * jax.random.normal(head_key, (width, 3)),
                "bias": jnp.zeros(3),
            },
        }

    def prepare(self, batch: Batch, keys: tuple[Array, Array]) -> Batch:
        """Draws, for the whole batch: which patches, what becomes of them, and other patches."""
        shape = (len(batch["weights"]), self._patches)
        which_key, what_key = keys
        ranks = jax.random.uniform(which_key, shape).argsort(axis=1).argsort(axis=1)
        what_key, other_key = jax.random.split(what_key)
        return batch | {
            "corrupted": ranks < self._corrupted,
            "what": jax.random.uniform(what_key, shape),
            "other": jax.random.randint(other_key, shape, 0, self._patches),
        }

    def losses(self, params: Params, fixed: Any, batch: Batch, key: Array) -> Examples:
        del fixed
        model, own = split_params(params)
        stem_key, blocks_key = jax.random.split(key)
        assert self._model.preprocessing is not None
        images = normalize(batch["images"], self._model.preprocessing)
        patches = self._to_patches(model, images, placement=self._placement)
        others = jnp.take_along_axis(patches, batch["other"][..., None], axis=1)
        what = batch["what"][..., None]
        changed = jnp.where(what < 0.8, own["mask"].astype(patches.dtype), others)
        changed = jnp.where(what < 0.9, changed, patches)
        patches = jnp.where(batch["corrupted"][..., None], changed, patches)
        tokens = self._to_tokens(model, patches, key=stem_key, placement=self._placement)
        _, captured = self._encode(
            model, tokens, key=blocks_key, placement=self._placement, capture=("tokens",)
        )
        first = int(self._model.has_class_token)
        seen = captured["tokens"][:, first : first + self._patches].astype(jnp.float32)
        errors = seen @ own["head"]["kernel"] + own["head"]["bias"] - self._colours(images)
        squares = jnp.where(batch["corrupted"], jnp.square(errors).mean(-1), 0)
        worst = jnp.where(batch["corrupted"], jnp.abs(errors).max(-1), 0).max(-1)
        losses = squares.sum(axis=1) / self._corrupted
        return Examples(losses, {"worst_patch": worst}, batch["weights"])

    def _colours(self, images: Array) -> Array:
        """The mean colour of each patch: [rows, patches, 3]."""
        rows, columns = self._model.grid
        size = images.shape[1] // rows
        parts = images.reshape(len(images), rows, size, columns, size, 3)
        return parts.mean(axis=(2, 4)).reshape(len(images), self._patches, 3)


@ObjectiveConfig.kinds.register("masked_patches")
@dataclass(frozen=True)
class MaskedPatchesConfig(ObjectiveConfig):
    """Learns without labels: predicts the mean colours of patches that it does not see."""

    learns_labels: ClassVar[bool] = False

    share: float = 0.5
    """Share of the patches that are corrupted."""

    def make(self, context: ObjectiveContext) -> MaskedPatches:
        return MaskedPatches(context, self.share)


CONFIG = """
import tests.training.test_masked_patches
from vit_jax.config import load_config


def get_config():
    config = load_config("configs/quickstart.py")
    config["objective"] = {"kind": "masked_patches"}
    config["data"]["affine"] = None
    return config
"""


def run(tmp_path: Path, name: str) -> list[str]:
    config = tmp_path / "masked.py"
    config.write_text(CONFIG)
    return [
        *("train", f"--config={config}"),
        *("--config.model.depth=1", "--config.model.width=32", "--config.model.mlp_dim=32"),
        *("--config.model.num_heads=2", "--config.model.dropout=0.1"),
        *("--config.data.batch_size=64", "--config.optimizer.micro_batches=2"),
        *("--config.optimizer.warmup_steps=10", "--config.optimizer.average=0.9"),
        *("--config.total_steps=40", "--config.log_every=1", "--config.checkpoint.every_steps=10"),
        *("--config.evals=none", f"--config.data.data_dir={tmp_path / 'data'}"),
        f"--workdir={tmp_path / name}",
    ]


def variance_of_colours(data_dir: Path) -> float:
    """The loss of always answering the mean colour of all patches of 2x2 pixels."""
    source = open_source("digits", "train", data_dir=str(data_dir))
    records = [source[index].image for index in range(len(source))]
    images = np.stack([np.asarray(Image.open(io.BytesIO(x)).convert("RGB")) for x in records])
    assert images.shape[1:] == (8, 8, 3)
    patches = (images / 127.5 - 1).reshape(-1, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    return float(patches.var(axis=(0, 1, 2)).mean())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the data and the runs."""
    return tmp_path_factory.mktemp("masked_patches")


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """A run that nothing disturbed."""
    assert main(run(home, "whole")) == 0
    return home / "whole"


def test_the_loss_falls_below_that_of_the_mean_colour(home: Path, whole: Path) -> None:
    metrics, _ = results(whole)
    losses = [line["train/loss"] for line in metrics if "train/loss" in line]
    assert len(losses) == 40
    constant = variance_of_colours(home / "data")
    assert losses[0] > constant > 1.2 * np.mean(losses[-10:])
    # The mask token and the head are no part of the model.
    with np.load(whole / "weights.npz") as weights:
        assert not [name for name in weights if "mask" in name or "objective" in name]


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(home: Path, whole: Path) -> None:
    process = start_process(run(home, "killed"))
    wait_for_line(process, "step 23/40")
    process.kill()
    process.communicate()
    assert main(run(home, "killed")) == 0
    assert results(home / "killed") == results(whole)


def test_eight_devices_equal_one(home: Path, whole: Path, eight_devices: EightDevices) -> None:
    assert eight_devices.run(main, run(home, "eight")) == 0
    (one, _), (eight, _) = results(whole), results(home / "eight")
    for key in ("train/loss", "train/worst_patch"):
        found, expected = ([line[key] for line in x if key in line][:12] for x in (eight, one))
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=key)
