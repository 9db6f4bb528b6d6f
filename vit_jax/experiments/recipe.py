"""A run's settings as a table that can be compared with a paper's, including what is off."""

from collections.abc import Callable

from vit_jax.training.early_stop import EarlyStopConfig
from vit_jax.training.optimizer import LINEAR_END, OptimizerConfig
from vit_jax.training.schedule import TIMESCALE, milestone_steps
from vit_jax.training.setup import Setup

_OFF = "none"


def recipe_rows(setup: Setup) -> list[tuple[str, str]]:
    """Names and values, in words, in the order of the papers' tables."""
    rows = [(label, get(setup)) for label, get in _ROWS]
    evals = [(f"evals.{name}", config.split) for name, config in setup.config.evals.items()]
    return [*((label, text) for label, text in rows if text is not None), *evals]


def _or_off(value: float | None, text: str = "{:g}") -> str:
    return text.format(value) if value else _OFF


def _inherited(word: str) -> str | None:
    """A field of the model; None if its family lacks the field."""
    return None if word == "inherit" else word


def _epochs(setup: Setup) -> str:
    config = setup.config
    epochs = config.epochs or setup.total_steps * config.data.batch_size / len(setup.source)
    return f"{epochs:.4g}"


def _micro_batches(setup: Setup) -> str:
    count, batch_size = setup.config.optimizer.micro_batches, setup.config.data.batch_size
    return f"{count} of {batch_size // count:,}" if count > 1 else _OFF


def _schedule(setup: Setup) -> str:
    config = setup.config.optimizer
    if config.schedule == "step":
        falls = ", ".join(f"{step:,}" for step in milestone_steps(config, setup.total_steps))
        return f"a tenth after each of the steps {falls}"
    cooldown = config.cooldown_steps
    ends = {
        "cosine": "cosine to 0",
        "linear": f"linear to {LINEAR_END:g}",
        "rsqrt": f"inverse square root of 1 + step / {config.timescale or TIMESCALE:,}",
        "constant": "constant",
    }
    return ends[config.schedule] + (f", to 0 in the last {cooldown:,} steps" if cooldown else "")


def _rates(setup: Setup) -> str:
    total, schedule = setup.total_steps, setup.program.schedule
    marks = {0, setup.config.optimizer.warmup_steps, total // 2, total - 1}
    return ", ".join(
        f"step {step + 1:,}: {float(schedule(step)):.3g}" for step in sorted(marks) if step < total
    )


def _optimizer(config: OptimizerConfig) -> str:
    betas = ", ".join(f"{beta:g}" for beta in config.betas)
    if config.name == "sgd":
        return f"SGD, momentum {betas} in {config.momentum_dtype}"
    if not config.betas:
        return ", ".join([config.name, *(f"{k}={v}" for k, v in config.arguments.items())])
    names = {"adamw": "AdamW", "adafactor": "Adafactor"}
    return f"{names[config.name]}, betas {betas}, first moment in {config.momentum_dtype}"


def _weight_decay(config: OptimizerConfig) -> str:
    decayed = {"all": "all parameters", "kernels": "kernels alone"}[config.decay_mask]
    own = "".join(f", {name} {value:g}x" for name, value in config.decays)
    return _or_off(config.weight_decay, f"{{:g}} times the rate, of {decayed}{own}")


def _own_rates(config: OptimizerConfig) -> str | None:
    return ", ".join(f"{name} {value:g}x" for name, value in config.rates) or None


def _crop(setup: Setup) -> str:
    data = setup.config.data
    low, high = data.crop_area
    crops = {
        "inception": f"{low:.0%} to {high:.0%} of the area",
        "resize": f"from the image at {data.crop_side}x{data.crop_side}",
        "short_side": f"from the image at short side {data.crop_side}",
        "none": _OFF,
    }
    return crops[data.crop]


def _affine(setup: Setup) -> str | None:
    affine = setup.config.data.affine
    if affine is None:
        return None
    return f"{affine.rotate:g} degrees, shift {affine.shift:g}, scale {affine.scale:g}"


def _color_jitter(setup: Setup) -> str | None:
    config = setup.config.data.color_jitter
    if config is None:
        return None
    return (
        f"brightness {config.brightness:g}, contrast {config.contrast:g}, saturation "
        f"{config.saturation:g}, hue {config.hue:g}"
    )


def _rand_augment(setup: Setup) -> str:
    config = setup.config.data.randaugment
    if config is None:
        return _OFF
    faults = ", original faults" if config.original_faults else ""
    return f"{config.layers} layers, magnitude {config.magnitude}{faults}"


def _evaluation(setup: Setup) -> str:
    if setup.preprocessing.resize != "short_side":
        return "whole image, squashed"
    side = setup.preprocessing.short_side or min(setup.model.input_size)
    return f"short side {side}, central crop"


def _of_early_stop(get: Callable[[EarlyStopConfig], str]) -> Callable[[Setup], str | None]:
    def row(setup: Setup) -> str | None:
        config = setup.config.early_stop
        return None if config is None else get(config)

    return row


# A row whose getter returns None does not exist for this run.
_ROWS: list[tuple[str, Callable[[Setup], str | None]]] = [
    ("data", lambda s: f"{s.source.name}, {len(s.source):,} examples"),
    ("batch size", lambda s: f"{s.config.data.batch_size:,}"),
    ("micro-batches", _micro_batches),
    ("epochs", _epochs),
    ("steps", lambda s: f"{s.total_steps:,}"),
    ("seed", lambda s: f"{s.config.seed}"),
    ("base rate", lambda s: f"{s.config.optimizer.lr:g}"),
    ("warm-up", lambda s: _or_off(s.config.optimizer.warmup_steps, "{:,} steps, linear")),
    ("schedule", _schedule),
    ("rates", _rates),
    ("optimizer", lambda s: _optimizer(s.config.optimizer)),
    ("weight decay", lambda s: _weight_decay(s.config.optimizer)),
    ("gradient clipping", lambda s: _or_off(s.config.optimizer.clip_norm, "global norm {:g}")),
    ("averaging", lambda s: _or_off(s.config.optimizer.average, "{:g} a step")),
    ("frozen", lambda s: ", ".join(s.config.optimizer.freeze) or None),
    ("own rates", lambda s: _own_rates(s.config.optimizer)),
    (
        "layer decay",
        lambda s: (
            None
            if s.config.optimizer.layer_decay is None
            else f"{s.config.optimizer.layer_decay:g}"
        ),
    ),
    # ResNet and Mixer have one way of each.
    ("positions", lambda s: _inherited(s.model.positions)),
    ("pooling", lambda s: _inherited(s.model.pooling)),
    ("representation", lambda s: _or_off(s.model.representation_size, "tanh layer of width {}")),
    ("head bias", lambda s: f"{s.model.head_bias:g}"),
    ("activations", lambda s: s.model.dtype),
    ("dropout", lambda s: _or_off(s.model.dropout)),
    ("stochastic depth", lambda s: _or_off(s.model.stochastic_depth, "{:g} at the last block")),
    ("objective", lambda s: s.config.objective.kind),
    ("loss", lambda s: s.config.loss),
    ("loss weights", lambda s: s.config.loss_weights),
    ("sampling", lambda s: None if s.config.data.sampling == "shuffled" else "every class alike"),
    ("label smoothing", lambda s: _or_off(s.config.label_smoothing)),
    ("crop", _crop),
    ("flip", lambda s: "left to right" if s.config.data.flip else _OFF),
    ("affine", _affine),
    ("colour jitter", _color_jitter),
    ("RandAugment", _rand_augment),
    ("Mixup", lambda s: _or_off(s.config.data.mixup)),
    ("CutMix", lambda s: _or_off(s.config.data.cutmix)),
    ("random erasing", lambda s: _or_off(s.config.data.erase, "probability {:g}")),
    ("evaluation", _evaluation),
    ("best step by", _of_early_stop(lambda early_stop: early_stop.name)),
    (
        "patience",
        _of_early_stop(lambda early_stop: _or_off(early_stop.patience, "{} evaluations")),
    ),
]
