"""A whole config: the sections of all rooms, and what belongs to the run itself."""

from dataclasses import dataclass, field

from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.evaluation import classification  # noqa: F401 (registers the default kind)
from vit_jax.evaluation.config import EvalConfig
from vit_jax.losses import Loss
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.runs.checkpoints import CheckpointConfig
from vit_jax.schema import nearest
from vit_jax.training.early_stop import EarlyStopConfig
from vit_jax.training.objectives import ObjectiveConfig
from vit_jax.training.optimizer import OptimizerConfig
from vit_jax.training.supervised import SupervisedConfig
from vit_jax.weights.transfer import PositionResize


@dataclass(frozen=True)
class TrainConfig:
    """What `train` needs; `schema.build` makes it from a config file's dict."""

    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    # What is learnt; `kind` chooses one of the registered objectives.
    objective: ObjectiveConfig = field(default_factory=SupervisedConfig)
    # How scores are compared with labels, in training and in evaluations.
    loss: Loss = "softmax"
    label_smoothing: float = 0.0
    # Exactly one of the two; an epoch is as many steps as show each example once on average.
    total_steps: int | None = None
    epochs: float | None = None
    # Of the initial parameters, the order of examples, crops, flips and dropout.
    seed: int = 0
    # Weights to start from: a file, the directory of a run that has ended, or a released name.
    init_from: str | None = None
    # How their positions get to another image size: see `weights.transfer.resize_positions`.
    position_resize: PositionResize = "aligned"
    log_every: int = 50
    evals: dict[str, EvalConfig] = field(default_factory=dict)
    # With it, the weights of the best step are the final ones, and evaluations that have no
    # `every_steps` score these.
    early_stop: EarlyStopConfig | None = None
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        if (self.total_steps is None) == (self.epochs is None):
            raise UserError("exactly one of total_steps and epochs must be given")
        if self.total_steps is not None and self.total_steps < 1:
            raise UserError(f"total_steps must be at least 1, not {self.total_steps}")
        if self.epochs is not None and self.epochs <= 0:
            raise UserError(f"epochs must be positive, not {self.epochs}")
        _check_label_smoothing(self.label_smoothing, self.loss)
        if not self.objective.learns_labels:
            self._check_nothing_of_labels()
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must be between 0 and 2**32 - 1, not {self.seed}")
        if self.log_every < 1:
            raise UserError(f"log_every must be at least 1, not {self.log_every}")
        side, crop_side = min(self.model.input_size), self.data.crop_side
        if crop_side is not None and crop_side < side:
            raise UserError(
                f"data.crop_side {crop_side} is below the {side} pixels of model.image_size, so "
                "that no crop fits; raise it"
            )
        for name in ("train", "time", "best"):
            if name in self.evals:
                raise UserError(f"evals.{name}: the name is taken by training's own metrics")
        if self.early_stop is not None:
            _check_early_stop(self.early_stop, self.evals)
        if self.init_from is None and self.position_resize != "aligned":
            raise UserError("position_resize would be ignored: it needs init_from")
        if self.data.batch_size % self.optimizer.micro_batches:
            raise UserError(
                f"data.batch_size {self.data.batch_size} is not a multiple of "
                f"optimizer.micro_batches {self.optimizer.micro_batches}"
            )

    def _check_nothing_of_labels(self) -> None:
        given = {
            "label_smoothing": self.label_smoothing,
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
        """Updates of the whole run over a data set of so many examples."""
        if self.total_steps is not None:
            return self.total_steps
        assert self.epochs is not None
        return max(1, round(self.epochs * examples / self.data.batch_size))


def _check_label_smoothing(share: float, loss: Loss) -> None:
    if not 0 <= share < 1:
        raise UserError(f"label_smoothing must be in [0, 1), not {share}")
    if loss == "sigmoid" and share >= 0.5:
        raise UserError(
            f"label_smoothing {share} leaves the right classes of loss='sigmoid' no higher a "
            "target than the wrong ones (1 - s and s); take less than 0.5"
        )


def _check_early_stop(early_stop: EarlyStopConfig, evals: dict[str, EvalConfig]) -> None:
    name = early_stop.eval
    if name not in evals:
        raise UserError(f"early_stop.eval: no evaluation {name!r} in evals{nearest(name, evals)}")
    if evals[name].every_steps is None:
        raise UserError(
            f"early_stop would be ignored: evals.{name} comes after the last step only; give it "
            "every_steps below those of the run"
        )
