"""A run as a table that can be held against a paper's: what each setting is, and what is off."""

from vit_jax.data.config import DataConfig
from vit_jax.models.config import ModelConfig
from vit_jax.training.config import TrainConfig
from vit_jax.training.early_stop import EarlyStopConfig
from vit_jax.training.optimizer import LINEAR_END, OptimizerConfig, milestone_steps
from vit_jax.training.setup import Setup

_OFF = "none"


def recipe_rows(setup: Setup) -> list[tuple[str, str]]:
    """Names and values, in words, in the order of the papers' tables."""
    config = setup.config
    return [
        *_length_rows(setup),
        *_rate_rows(setup),
        *_optimizer_rows(config.optimizer),
        *_model_rows(setup.model),
        *_objective_rows(config),
        *_image_rows(config.data),
        *_evaluation_rows(setup),
    ]


def _length_rows(setup: Setup) -> list[tuple[str, str]]:
    config, total = setup.config, setup.total_steps
    batch_size, micro_batches = config.data.batch_size, config.optimizer.micro_batches
    # As given; else what the steps amount to.
    epochs = config.epochs or total * batch_size / len(setup.source)
    micro = f"{micro_batches} of {batch_size // micro_batches:,}"
    return [
        ("data", f"{setup.source.name}, {len(setup.source):,} examples"),
        ("batch size", f"{batch_size:,}"),
        ("micro-batches", micro if micro_batches > 1 else _OFF),
        ("epochs", f"{epochs:.4g}"),
        ("steps", f"{total:,}"),
        ("seed", f"{config.seed}"),
    ]


def _rate_rows(setup: Setup) -> list[tuple[str, str]]:
    config, total = setup.config.optimizer, setup.total_steps
    ends = {"cosine": "cosine to 0", "linear": f"linear to {LINEAR_END:g}", "constant": "constant"}
    if config.schedule == "step":
        falls = ", ".join(f"{step:,}" for step in milestone_steps(config, total))
        ends["step"] = f"a tenth after each of the steps {falls}"
    marks = {0, config.warmup_steps, total // 2, total - 1}
    rates = [
        f"step {s + 1:,}: {float(setup.program.schedule(s)):.3g}"
        for s in sorted(marks)
        if s < total
    ]
    return [
        ("base rate", f"{config.lr:g}"),
        ("warm-up", f"{config.warmup_steps:,} steps, linear" if config.warmup_steps else _OFF),
        ("schedule", ends[config.schedule]),
        ("rates", ", ".join(rates)),
    ]


def _optimizer_rows(config: OptimizerConfig) -> list[tuple[str, str]]:
    betas = ", ".join(f"{beta:g}" for beta in config.betas)
    if config.name == "sgd":
        optimizer = f"SGD, momentum {betas} in {config.momentum_dtype}"
    else:
        optimizer = f"AdamW, betas {betas}, first moment in {config.momentum_dtype}"
    decayed = {"all": "all parameters", "kernels": "kernels alone"}[config.decay_mask]
    decay = f"{config.weight_decay:g} times the rate, of {decayed}"
    rows = [
        ("optimizer", optimizer),
        ("weight decay", decay if config.weight_decay else _OFF),
        ("gradient clipping", _or_off(config.clip_norm, "global norm {:g}")),
        ("averaging", _or_off(config.average, "{:g} a step")),
    ]
    if config.freeze:
        rows.append(("frozen", ", ".join(config.freeze)))
    if config.rates:
        rows.append(("own rates", ", ".join(f"{name} {value:g}x" for name, value in config.rates)))
    if config.layer_decay is not None:
        rows.append(("layer decay", f"{config.layer_decay:g}"))
    return rows


def _model_rows(model: ModelConfig) -> list[tuple[str, str]]:
    """What no table of shapes shows; ResNet and Mixer have one way of each of the first two."""
    own = {"positions": model.positions, "pooling": model.pooling}
    return [
        *((name, kind) for name, kind in own.items() if kind is not None),
        ("representation", _representation(model)),
        ("head bias", f"{model.head_bias:g}"),
        ("activations", model.dtype),
    ]


def _objective_rows(config: TrainConfig) -> list[tuple[str, str]]:
    model = config.model
    return [
        ("dropout", _or_off(model.dropout)),
        ("stochastic depth", _or_off(model.stochastic_depth, "{:g} at the last block")),
        ("loss", config.loss),
        ("label smoothing", _or_off(config.label_smoothing)),
    ]


def _representation(model: ModelConfig) -> str:
    size = model.representation_size
    return _OFF if size is None else f"tanh layer of width {size}"


def _image_rows(data: DataConfig) -> list[tuple[str, str]]:
    low, high = data.crop_area
    crops = {
        "inception": f"{low:.0%} to {high:.0%} of the area",
        "resize": f"from the image at {data.crop_side}x{data.crop_side}",
        "short_side": f"from the image at short side {data.crop_side}",
        "none": _OFF,
    }
    rows = [
        ("crop", crops[data.crop]),
        ("flip", "left to right" if data.flip else _OFF),
    ]
    if data.affine is not None:
        affine = data.affine
        rows.append(
            ("affine", f"{affine.rotate:g} degrees, shift {affine.shift:g}, scale {affine.scale:g}")
        )
    return [
        *rows,
        ("RandAugment", _rand_augment(data)),
        ("Mixup", _or_off(data.mixup)),
        ("CutMix", _or_off(data.cutmix)),
        ("random erasing", _or_off(data.erase, "probability {:g}")),
    ]


def _rand_augment(data: DataConfig) -> str:
    if data.randaugment is None:
        return _OFF
    layers, magnitude = data.randaugment.layers, data.randaugment.magnitude
    faults = ", original faults" if data.randaugment.original_faults else ""
    return f"{layers} layers, magnitude {magnitude}{faults}"


def _evaluation_rows(setup: Setup) -> list[tuple[str, str]]:
    resize, early_stop = "whole image, squashed", setup.config.early_stop
    if setup.preprocessing.resize == "short_side":
        side = setup.preprocessing.short_side or min(setup.model.input_size)
        resize = f"short side {side}, central crop"
    return [
        ("evaluation", resize),
        *((f"evals.{name}", config.split) for name, config in setup.config.evals.items()),
        *(_early_stop_rows(early_stop) if early_stop else []),
    ]


def _early_stop_rows(config: EarlyStopConfig) -> list[tuple[str, str]]:
    patience = f"{config.patience} evaluations" if config.patience else _OFF
    return [("best step by", config.name), ("patience", patience)]


def _or_off(value: float | None, text: str = "{:g}") -> str:
    return text.format(value) if value else _OFF
