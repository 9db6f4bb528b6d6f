"""The choices themselves: what a run takes for each `auto`, from its data, weights and devices."""

from __future__ import annotations

import copy
import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from vit_jax.data.sources.labels import class_counts
from vit_jax.data.sources.open import is_folder, open_source
from vit_jax.data.sources.own_splits import own_splits
from vit_jax.errors import UserError
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.measuring import fits, measure
from vit_jax.training.open_keys import AUTO, open_keys
from vit_jax.training.released_start import best_release
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import open_weights

# Fine-tuning: passes over the data, and steps that few images get at least.
_EPOCHS, _LEAST_STEPS, _MOST_EPOCHS = 30, 200, 100
_EPOCHS_FROM_SCRATCH = 300
_BATCH_ON_CPU = 32
# The largest class over the smallest, from which on all classes are drawn equally often.
_UNEQUAL = 3.0
# Mean images of a class, and passes over the data, below which only the head learns: a few steps
# move a body away from what the head was fitted to, and no further.
_FEW, _LEAST_EPOCHS = 5, 2
# Patterns of all but the head.
_BODY = ["(?!head/).*"]
# What a trial takes in place of what it is there to find.
_TRIAL = {
    "total_steps": 100,
    "warmup_steps": 0,
    "every_steps": 100,
    "log_every": 1,
    "micro_batches": 1,
    "freeze": [],
    "layer_decay": None,
}
# What a model's name need not say.
SHAPE = (
    *("depth", "width", "mlp_dim", "num_heads", "token_mlp_dim", "stages", "width_factor"),
    "registers",
)
# Shares of a run on a CPU that the steps may take, beside what was measured.
_SPARE = 0.9
# A report is drawn at the end, after one more pass over the images that score the result.
_REPORT_SECONDS = 20.0


class Choices:
    """Makes the choices of one new run, in place."""

    def __init__(
        self, values: dict[str, Any], max_minutes: float | None, say: Callable[[str], object]
    ):
        self.values, self.minutes, self.say = values, max_minutes, say
        self.began = time.monotonic()
        self.is_short = False
        self.on_cpu = jax.default_backend() == "cpu"

    def make(self) -> None:
        """Makes all of them, in the order in which they build on each other."""
        self._splits()
        source = open_source(self._get("data.dataset"), self._get("data.train"))
        counts = class_counts(source)
        self._unequal(counts[counts > 0].tolist())
        self.images, self.classes = len(source), max(int((counts > 0).sum()), 1)
        self._weights()
        self._model()
        self._devices()
        self._rates()
        self._memory()
        self._length()
        self._layers()
        for key in open_keys(self.values):
            raise UserError(f"config.{key}: 'auto' has no choice for it; set a value")

    def _get(self, key: str) -> Any:
        value: Any = self.values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def _set(self, key: str, value: Any, reason: str) -> None:
        """Sets what is open; anything else is what a person wants."""
        *sections, last = key.split(".")
        section: Any = self.values
        for name in sections:
            section = section.get(name)
            if not isinstance(section, dict):
                return
        if section.get(last) == AUTO:
            section[last] = value
            self.say(f"{key}={value}: {reason}")

    @property
    def _starts_trained(self) -> bool:
        return self._get("init_from") is not None

    def _weights(self) -> None:
        if self._get("init_from") != AUTO:
            return
        split = self._get("evals.test.split")
        tested = 0 if split is None else len(open_source(self._get("data.dataset"), split))
        release, reason = best_release(self.images + tested, on_cpu=self.on_cpu)
        self._set("init_from", release.name, reason)
        try:
            resolve(release.name)
        except UserError as error:
            raise UserError(
                f"{error}; or give weights that are here, as in configs/photos.py:FOLDER,WEIGHTS"
            ) from error

    def _model(self) -> None:
        if not self._starts_trained:
            self._set("model.name", "ViT-Ti/16", "from scratch, the smallest model")
            self._set("model.image_size", 224, "the usual size of photographs")
            return
        weights = open_weights(resolve(self._get("init_from")))
        if self._get("model.name") == AUTO:
            for key in SHAPE:
                if (own := getattr(weights.model, key)) not in (None, 0):
                    self.values["model"].setdefault(key, own)
        self._set("model.name", weights.model.name, f"that of {weights.path.name}")
        size = weights.model.image_size
        self._set("model.image_size", size, "what the weights were trained on")

    def _splits(self) -> None:
        dataset = self._get("data.dataset")
        splits = own_splits(dataset, self._get("data.data_dir"))
        kinds = [name for name in ("test", "val", "validation", "valid") if name in splits]
        if is_folder(dataset) and splits and not kinds:
            # As a folder of classes, of which a share is drawn within each class.
            train = str(Path(dataset).expanduser() / splits[0])
            self.values["data"]["dataset"] = "./" + train if not is_folder(train) else train
            splits = ()
        if kinds:
            self._set("evals.test.split", kinds[0], f"the folder has {' and '.join(splits)}")
        else:
            self._set("evals.test.split", "test", "a tenth of each class is held out")
        if len(kinds) > 1:
            stop = {"eval": "val", "metric": "top1"}
            self._set("early_stop", stop, f"{kinds[1]!r} chooses the best step, and no test image")
            if self._get("early_stop") is not None:
                self.values["evals"].setdefault("val", {"split": kinds[1], "every_steps": AUTO})
        else:
            why = "no images are left for it besides those that score the result"
            self._set("early_stop", None, why)

    def _unequal(self, counts: list[int]) -> None:
        ratio = max(counts, default=1) / min(counts, default=1)
        if ratio >= _UNEQUAL:
            reason = f"the largest class has {ratio:.1f} times the images of the smallest"
            self._set("data.sampling", "balanced", reason)
        else:
            self._set("data.sampling", "shuffled", f"classes are alike within {ratio:.1f} : 1")

    def _devices(self) -> None:
        name = "a CPU" if self.on_cpu else f"{jax.device_count()} {jax.devices()[0].device_kind}"
        minutes = 10 if self.on_cpu else None
        self._set("max_minutes", minutes, f"on {name}; --max_minutes changes it")
        if self.on_cpu:
            batch = _BATCH_ON_CPU
            self._set("model.dtype", "float32", "what a CPU computes fastest")
            self._set("data.workers", 0, "threads decode beside the model")
        else:
            batch = 32 if self.images < 2_000 else 128 if self.images < 20_000 else 512
            batch = max(batch, jax.device_count())
            self._set("model.dtype", "bfloat16", "what accelerators compute fastest")
            self._set("data.workers", min(8, os.cpu_count() or 1), "one for each core, 8 at most")
        while batch > max(self.images, jax.device_count()):
            batch //= 2
        self._set("data.batch_size", max(batch, 1), f"of {self.images:,} images, on {name}")

    def _rates(self) -> None:
        if not self._starts_trained:
            self._set("init_head", None, "from scratch there are no features to probe")
            self._set("optimizer.lr", 1e-3, "from scratch")
            self._set("optimizer.weight_decay", 0.05, "from scratch")
            return
        self._set("init_head", "probe", "features of the weights, computed once, give the head")
        self._set("optimizer.lr", 2e-4, "fine-tuning from a head that fits")
        self._set("optimizer.weight_decay", 0.0, "fine-tuning is short")

    def _layers(self) -> None:
        if not self._starts_trained:
            self._set("optimizer.layer_decay", None, "from scratch all layers learn alike")
            self._set("optimizer.freeze", [], "from scratch all layers learn")
            return
        if self.images / self.classes < _FEW:
            self._set("optimizer.freeze", _BODY, f"fewer than {_FEW} images a class")
        if self.is_short:
            self._set("optimizer.freeze", _BODY, "the time is too short for more")
        self._set("optimizer.freeze", [], f"{self.images / self.classes:.0f} images a class")
        if self._get("optimizer.freeze"):
            self._set("optimizer.layer_decay", None, "the body is frozen")
        self._set("optimizer.layer_decay", 0.8, "lower layers know most already")

    def _memory(self) -> None:
        batch, parts = self._get("data.batch_size"), 1
        if self._get("optimizer.micro_batches") != AUTO:
            return
        # Several processes would have to compile together.
        while not self.on_cpu and jax.process_count() == 1 and parts < batch:
            if batch % parts == 0 and fits(self._trial(micro_batches=parts)):
                break
            parts *= 2
        self._set("optimizer.micro_batches", parts, "so the batch fits into the memory")

    def _length(self) -> None:
        batch = self._get("data.batch_size")
        an_epoch = max(1, round(self.images / batch))
        epochs = _EPOCHS if self._starts_trained else _EPOCHS_FROM_SCRATCH
        steps = max(epochs * an_epoch, min(_LEAST_STEPS, _MOST_EPOCHS * an_epoch))
        reason = f"{steps * batch / self.images:.0f} epochs of {self.images:,} images"
        minutes = self.minutes or self._get("max_minutes")
        if self._get("total_steps") == AUTO and self.on_cpu and minutes is not None:
            fitting = self._fitting(minutes)
            if fitting < steps:
                steps = fitting
                reason = (
                    f"{steps * batch / self.images:.1f} epochs, what fits into {minutes:g} minutes "
                    f"by the measured {self.rate:.1f} images a second; --extend_to takes more later"
                )
            if fitting < _LEAST_EPOCHS * an_epoch and self._get("init_head") is not None:
                self.is_short, steps = True, 1
                reason = (
                    f"the probe is the result: less than {_LEAST_EPOCHS} epochs fit into "
                    f"{minutes:g} minutes by the measured {self.rate:.1f} images a second"
                )
        self._set("total_steps", steps, reason)
        steps = self._get("total_steps")
        self._set("optimizer.warmup_steps", min(steps // 10, an_epoch), "a tenth, or an epoch")
        every = max(1, min(an_epoch, steps // 2))
        self._set("evals.test.every_steps", None, "scored at the end")
        if steps > 1:
            self._set("evals.val.every_steps", every, "once an epoch")
        self._set("evals.val.every_steps", None, "scored at the end")
        self._set("checkpoint.every_steps", max(an_epoch, steps // 10), "ten in the run")
        self._set("log_every", max(1, steps // 40), "forty lines in the run")

    def _fitting(self, minutes: float) -> int:
        """Steps that fit, by a trial of the step that is compiled as it will be."""
        trial = measure(self._trial())
        self.rate = self._get("data.batch_size") / trial.step_seconds
        scored = trial.evaluated * (3 if self._get("init_head") else 2)
        passes = scored + (self.images if self._get("init_head") else 0)
        elapsed = time.monotonic() - self.began
        other = elapsed + 2 * trial.compile_seconds + passes * trial.image_seconds
        other += _REPORT_SECONDS
        return max(1, int(_SPARE * (minutes * 60 - other) / trial.step_seconds))

    def _trial(self, **chosen: Any) -> TrainConfig:
        """The config with values for a trial in place of those that it is there to find."""
        values = copy.deepcopy(self.values)
        values["early_stop"] = None
        for key in list(open_keys(values)):
            *sections, last = key.split(".")
            section = functools.reduce(lambda inner, name: inner[name], sections, values)
            section[last] = (_TRIAL | chosen)[last]
            if sections[:1] == ["evals"]:
                section[last] = None
        return build(TrainConfig, values)
