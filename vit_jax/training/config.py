"""A whole config: the sections of all rooms, and what belongs to the run itself."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vit_jax.config import apply_overrides, load_config
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.evaluation import builtin  # noqa: F401 (registers the kinds)
from vit_jax.evaluation.config import EvalConfig
from vit_jax.losses import Loss
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.runs.checkpoints import CheckpointConfig
from vit_jax.spelling import nearest
from vit_jax.training.callbacks import check_callbacks
from vit_jax.training.early_stop import EarlyStopConfig
from vit_jax.training.masked_patches import MaskedPatchesConfig  # noqa: F401  It registers.
from vit_jax.training.objectives import ObjectiveConfig
from vit_jax.training.optimizer import OptimizerConfig
from vit_jax.training.supervised import SupervisedConfig
from vit_jax.weights.transfer import PositionResize


def as_values(config: Mapping[str, Any] | str) -> dict[str, Any]:
    """A config as a plain nested dict.

    Args:
      config: an `ml_collections.ConfigDict`, a dict, or the text of `--config`.

    Raises:
      UserError: as `load_config`.
    """
    if isinstance(config, str):
        return load_config(config)
    return apply_overrides(copy.deepcopy(config), ())


# The multiple of a config that asks for spikes and leaves it open.
SPIKE_MULTIPLE = 3.0

# What comes before the slash in names of scalars that are no evaluation's.
OWN_METRICS = ("train", "time", "memory", "best", "rewind", "norms")


@dataclass(frozen=True)
class TrainConfig:
    """All that a run is made from; `schema.build` makes it from a config file's dict."""

    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    objective: ObjectiveConfig = field(default_factory=SupervisedConfig)
    """What is learnt. Its `kind` chooses a registered objective."""
    loss: Loss = "softmax"
    """How scores are compared with labels, in training and in evaluations. softmax: one right
    class. sigmoid: each class on its own."""
    label_smoothing: float = 0.0
    """Share of the target that is taken from the right class, in [0, 1)."""
    loss_weights: Literal["balanced"] | None = None
    """How much an example's loss counts by its class. `balanced`: n / (k n_c), with n examples of k
    classes and n_c of this one, so that all classes count alike. None: all examples count alike."""
    total_steps: int | None = None
    """Steps of the run. Give either this or `epochs`."""
    epochs: float | None = None
    """Length of the run in passes over the training data."""
    seed: int = 0
    """Seed of the initial parameters, the order of examples, crops, flips, mixing and dropout."""
    init_from: str | None = None
    """Weights to start from: a file, the directory of a run that has ended, a released name, or
    `hf://ORG/NAME[@REVISION]` of the Hugging Face Hub, of which the run keeps the commit."""
    init_head: Literal["probe"] | None = None
    """How the head of a run that starts from `init_from` starts. `probe`: as a logistic regression
    on the features of the training images, which are computed once. None: at zero, or as the head
    that `init_from` has for the same classes."""
    position_resize: PositionResize = "aligned"
    """How position embeddings of `init_from` are resized to another image size."""
    max_minutes: float | None = None
    """Minutes after which a start ends, with state and weights saved; --max_minutes comes before
    it. None: no end before the last step."""
    log_every: int = 50
    """Steps between two reports of the loss, the rate and the speed."""
    log_norms: bool = False
    """Whether the reports hold the norms of gradient, parameters and update by part of the model
    and by block."""
    evals: dict[str, EvalConfig] = field(default_factory=dict)
    """Evaluations by name."""
    early_stop: EarlyStopConfig | None = None
    """Makes the weights of the best step the final ones. Evaluations without `every_steps` score
    those weights."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    on_non_finite: Literal["stop", "rewind"] = "stop"
    """What a loss or gradient of NaN or infinity does. stop: ends the run. rewind: goes back to the
    newest checkpoint; the steps from there to this one pass without an update, and the schedule
    goes on."""
    on_spike: Literal["ignore", "stop", "rewind"] = "ignore"
    """What a loss of more than `spike_multiple` times the median of the 100 steps before does.
    ignore: nothing. stop, rewind: as for on_non_finite."""
    spike_multiple: float | None = None
    """The multiple of the median above which a loss is a spike. None: 3."""
    max_rewinds: int | None = None
    """Rewinds after which the run ends all the same. None: 3."""
    callbacks: tuple[str, ...] = ("tensorboard",)
    """Who gets the scalars besides metrics.jsonl: tensorboard, wandb, mlflow, or a name that a
    config file registered."""
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        if (self.total_steps is None) == (self.epochs is None):
            raise UserError("exactly one of total_steps and epochs must be given")
        if self.total_steps is not None and self.total_steps < 1:
            raise UserError(f"total_steps must be at least 1, not {self.total_steps}")
        if self.epochs is not None and self.epochs <= 0:
            raise UserError(f"epochs must be positive, not {self.epochs}")
        _check_loss(self.loss, self.label_smoothing, self.loss_weights)
        if not self.objective.learns_labels:
            self._check_nothing_of_labels()
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must be between 0 and 2**32 - 1, not {self.seed}")
        self._check_bad_steps()
        if self.log_every < 1:
            raise UserError(f"log_every must be at least 1, not {self.log_every}")
        side, crop_side = min(self.model.input_size), self.data.crop_side
        if crop_side is not None and crop_side < side:
            raise UserError(
                f"data.crop_side {crop_side} is below the {side} pixels of model.image_size, so "
                "no crop fits; raise it"
            )
        for name in OWN_METRICS:
            if name in self.evals:
                raise UserError(f"evals.{name}: the name is taken by training's own metrics")
        check_callbacks(self.callbacks)
        if self.early_stop is not None:
            _check_early_stop(self.early_stop, self.evals)
        self._check_start()
        if self.data.batch_size % self.optimizer.micro_batches:
            raise UserError(
                f"data.batch_size {self.data.batch_size} is not a multiple of "
                f"optimizer.micro_batches {self.optimizer.micro_batches}"
            )

    def _check_start(self) -> None:
        for key, default in (("position_resize", "aligned"), ("init_head", None)):
            if self.init_from is None and getattr(self, key) != default:
                raise UserError(f"{key} would be ignored: it needs init_from")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise UserError(f"max_minutes must be positive, not {self.max_minutes}")

    def _check_bad_steps(self) -> None:
        most, multiple = self.max_rewinds, self.spike_multiple
        if most is not None and "rewind" not in (self.on_non_finite, self.on_spike):
            raise UserError(
                "max_rewinds would be ignored: it needs on_non_finite='rewind' or on_spike='rewind'"
            )
        if most is not None and most < 1:
            raise UserError(f"max_rewinds must be at least 1, not {most}; 'stop' never rewinds")
        if multiple is not None and self.on_spike == "ignore":
            raise UserError(
                "spike_multiple would be ignored: it needs on_spike='stop' or on_spike='rewind'"
            )
        if multiple is not None and multiple <= 1:
            raise UserError(f"spike_multiple must be above 1, not {multiple}")

    @property
    def spike_limit(self) -> float | None:
        """The multiple of the median above which a loss is a spike; None looks for none."""
        return None if self.on_spike == "ignore" else self.spike_multiple or SPIKE_MULTIPLE

    def _check_nothing_of_labels(self) -> None:
        given = {
            "label_smoothing": self.label_smoothing,
            "loss_weights": self.loss_weights,
            "init_head": self.init_head,
            "data.mixup": self.data.mixup,
            "data.cutmix": self.data.cutmix,
        }
        for key, value in given.items():
            if value:
                raise UserError(
                    f"{key} would be ignored: objective.kind={self.objective.kind} learns nothing "
                    "from labels; leave it out"
                )

    def steps(self, examples: int) -> int:
        """Steps of the whole run over a data set with this number of examples."""
        if self.total_steps is not None:
            return self.total_steps
        assert self.epochs is not None
        return max(1, round(self.epochs * examples / self.data.batch_size))


def _check_loss(loss: Loss, share: float, loss_weights: str | None) -> None:
    if loss_weights is not None and loss != "softmax":
        raise UserError(
            f"loss_weights={loss_weights!r} needs loss='softmax', where an example has one class"
        )
    if not 0 <= share < 1:
        raise UserError(f"label_smoothing must be in [0, 1), not {share}")
    if loss == "sigmoid" and share >= 0.5:
        raise UserError(
            f"label_smoothing {share} gives the right classes of loss='sigmoid' no higher "
            "target than the wrong ones (1 - s and s); take less than 0.5"
        )


def _check_early_stop(early_stop: EarlyStopConfig, evals: dict[str, EvalConfig]) -> None:
    name = early_stop.eval
    if name not in evals:
        raise UserError(f"early_stop.eval: no evaluation {name!r} in evals{nearest(name, evals)}")
    if evals[name].every_steps is None:
        raise UserError(
            f"early_stop would be ignored: evals.{name} runs after the last step only; give it "
            "every_steps below the steps of the run"
        )
