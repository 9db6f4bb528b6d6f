"""Optimizers of optax by their names, with arguments from a config."""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

import jax
import optax

from vit_jax.errors import UserError
from vit_jax.schema import convert
from vit_jax.spelling import near, nearest

PREFIX = "optax:"

_Optimizer = Callable[..., optax.GradientTransformation]
Argument = bool | int | float | str | None

_NEEDS_LOSS = "it needs the loss's value, and a step gives it gradients alone"
_OWN_RATE = "it finds a rate of its own, from all parameters at once"
_NOT_LINEAR = "its updates are not proportional to the rate, as the schedule and `rates` want"
_OTHER_PARAMETERS = "it evaluates other parameters than it trains, and takes no schedule"
_REFUSED = {
    "fromage": _NOT_LINEAR,
    "lars": "its momentum holds updates times their rates; optax:lamb has a trust ratio too",
    "lbfgs": _NEEDS_LOSS,
    "noisy_sgd": "it draws noise of its own, which would be the same in every block",
    "optimistic_adam": "it takes no schedule; optax:optimistic_adam_v2 does",
    "polyak_sgd": _NEEDS_LOSS,
    "rprop": _NOT_LINEAR,
    "contrib.cocob": _OWN_RATE,
    "contrib.dadapt_adamw": _OWN_RATE,
    "contrib.dog": _OWN_RATE,
    "contrib.dowg": _OWN_RATE,
    "contrib.dpsgd": "it needs each example's gradient, and a step gives it their mean",
    "contrib.galore": "it must be told the rows and columns of each kernel",
    "contrib.madgrad": _NOT_LINEAR,
    "contrib.mechanize": _OWN_RATE,
    "contrib.momo": _NEEDS_LOSS,
    "contrib.momo_adam": _NEEDS_LOSS,
    "contrib.muon": "it must be told the rows and columns of each kernel",
    "contrib.prodigy": _OWN_RATE,
    "contrib.sam": "it needs a second gradient in each step",
    "contrib.schedule_free": _OTHER_PARAMETERS,
    "contrib.schedule_free_adamw": _OTHER_PARAMETERS,
    "contrib.schedule_free_sgd": _OTHER_PARAMETERS,
    "contrib.sophia": "it needs the loss as a function",
}
# Arguments that make an optimizer other than proportional to the rate.
_REFUSED_ARGUMENTS = {
    ("adafactor", "momentum"): "it would hold updates times their rates; name=adafactor has one",
    ("rmsprop", "momentum"): "it would hold updates times their rates",
    ("rmsprop", "nesterov"): "it needs `momentum`, which would hold updates times their rates",
}
# What decays weights apart from the gradient's own step does what `optimizer.weight_decay` does.
_DECAY = ("weight_decay", "weight_decay_rate")
# These decay within it, so that they keep a decay of their own.
_OWN_DECAY = ("adadelta", "lamb", "novograd")
# Trees or functions of the parameters, and what is for debugging.
_NOT_SET = ("learning_rate", "mask", "weight_decay_mask", "dtype_momentum", "clip_value_fn")
_DTYPE = Literal["float32", "bfloat16", "float16"]


def check(name: str, arguments: Mapping[str, Argument], weight_decay: float) -> None:
    """Checks what a config says of an optimizer of optax.

    Args:
      name: such as "optax:lion" or "optax:contrib.ademamix".
      arguments: by the names that optax gives them.
      weight_decay: ours, apart from the optimizer's own step.

    Raises:
      UserError: there is no such optimizer, it needs more than gradients, its updates are not
          proportional to the rate, it takes no such argument or one of another type, or it has a
          weight decay of its own and ours is set too.
    """
    short = name.removeprefix(PREFIX)
    if short in _REFUSED:
        raise UserError(
            f"name: {name!r} cannot be used: {_REFUSED[short]}; choose another, such as optax:lion"
        )
    if short not in _optimizers():
        known = [f"{PREFIX}{each}" for each in _optimizers() if each not in _REFUSED]
        raise UserError(f"name: optax has no optimizer {short!r}{nearest(name, known)}")
    _converted(short, arguments)
    if short in _OWN_DECAY and weight_decay:
        raise UserError(
            f"weight_decay would not be {short}'s own, which is part of its step; set "
            f"arguments.weight_decay={weight_decay:g} in its place"
        )


def make(name: str, arguments: Mapping[str, Argument]) -> optax.GradientTransformation:
    """An optimizer of optax at rate 1, as what is to be subtracted from the parameters.

    Args:
      name: one that `check` let pass, and so of the arguments.

    Raises:
      UserError: optax refuses the arguments.
    """
    short = name.removeprefix(PREFIX)
    optimizer = _optimizers()[short]
    takes = inspect.signature(optimizer).parameters
    values = _converted(short, arguments)
    if "weight_decay" in takes and short not in _OWN_DECAY:
        values["weight_decay"] = 0.0
    try:
        rule = optimizer(learning_rate=1.0, **values)
        # Some complain of their arguments only now.
        some = {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}
        jax.eval_shape(lambda p: rule.update(p, rule.init(p), p), some)
    except Exception as error:
        message = " ".join(str(error).split())
        raise UserError(f"config.optimizer: {name!r} with arguments {values}: {message}") from error
    return optax.chain(rule, optax.scale(-1.0))


def suggestion(name: str, own: tuple[str, ...]) -> str:
    """The end of the message about a name that is neither ours nor begins with `optax:`."""
    known = [f"{PREFIX}{each}" for each in _optimizers() if each not in _REFUSED]
    spellings = (f"{PREFIX}{name.lower()}", f"{PREFIX}contrib.{name.lower()}")
    meant = [near(name, own), *(each for each in spellings if each in known)]
    if any(meant):
        return f"; did you mean {' or '.join(repr(each) for each in meant if each)}?"
    return nearest(name, [*own, *known])


@functools.cache
def _optimizers() -> dict[str, _Optimizer]:
    """What makes an optimizer of a learning rate, in `optax` and in its `contrib`."""
    found = {}
    for prefix, module in (("", optax), ("contrib.", optax.contrib)):
        for name, member in inspect.getmembers(module):
            is_function = isinstance(member, types.FunctionType | functools.partial)
            if not is_function or name.startswith(("_", "scale_by")):
                continue
            signature = inspect.signature(member)
            makes_one = "GradientTransformation" in str(signature.return_annotation)
            if makes_one and "learning_rate" in signature.parameters:
                found[f"{prefix}{name}"] = member
    return found


def _converted(short: str, arguments: Mapping[str, Argument]) -> dict[str, Any]:
    """The arguments by the types that the optimizer takes."""
    for key in arguments:
        if (reason := _REFUSED_ARGUMENTS.get((short, key))) is not None:
            raise UserError(f"arguments.{key}: not for {PREFIX}{short}: {reason}")
        if key in _DECAY and short not in _OWN_DECAY:
            raise UserError(f"arguments.{key}: set optimizer.weight_decay in its place")
        if key == "learning_rate":
            raise UserError(f"arguments.{key}: set optimizer.lr and optimizer.schedule")
    return convert(_section(short), arguments, "arguments")


@functools.cache
def _section(short: str) -> type:
    """The arguments that a config may set, as a dataclass."""
    fields: list[Any] = []
    for key, parameter in inspect.signature(_optimizers()[short]).parameters.items():
        is_decay = key in _DECAY and short not in _OWN_DECAY
        if key in _NOT_SET or is_decay or (short, key) in _REFUSED_ARGUMENTS:
            continue
        hint = _hint(key, parameter)
        if hint is not None:
            fields.append((key, hint, dataclasses.field(default=parameter.default)))
    return dataclasses.make_dataclass(short.replace(".", "_"), fields)


def _hint(key: str, parameter: inspect.Parameter) -> Any:
    """The type of an argument, by its annotation or its default; None if no config can hold it."""
    default = parameter.default
    if get_origin(parameter.annotation) is Literal:
        return parameter.annotation
    if key.endswith("dtype"):
        return _DTYPE | None
    if default is None:
        return float | None
    kind = next((kind for kind in (bool, int, float, str) if isinstance(default, kind)), None)
    return kind | None if kind and type(None) in get_args(parameter.annotation) else kind
