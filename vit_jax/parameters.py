"""What each parameter of a model is: its axes by name, its role, and its part of the model.

A table says it once for each family of models. Sharding, layer-wise rates, weight decay and
freezing read the table, so a new kind of parameter is described in one place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax

from vit_jax.errors import UserError

Role = Literal["kernel", "bias", "scale", "embedding"]
# In the order of the forward pass. `stage`: the residual units of a ResNet or of a hybrid.
Part = Literal[
    "stem", "stage", "token", "position", "block", "norm", "pooling", "representation", "head"
]

# The axis along which the parameters of equal blocks are stacked. It comes first, and a scan runs
# over it.
BLOCK_AXIS = "block"

# An axis of an optimizer's array that is none of its parameter's.
_OTHER = "other"


@dataclass(frozen=True)
class Parameter:
    """Describes one array.

    Attributes:
      axes: a name for each axis, such as `block`, `width`, `heads`, `head_size`, `hidden`,
        `classes`, `positions`, `height`, `columns` and `channels`. `batch` is an axis of length 1
        over which the array is repeated.
      role: `kernel` of a dense layer or convolution, `bias`, `scale` of a norm, or `embedding`,
        an array that is used as it is.
      part: where in the model it is used.
    """

    axes: tuple[str, ...]
    role: Role
    part: Part

    def __post_init__(self) -> None:
        for value, values in ((self.role, Role), (self.part, Part)):
            if value not in get_args(values):
                raise ValueError(f"{value!r} is not one of {', '.join(get_args(values))}")

    @property
    def is_stacked(self) -> bool:
        """Whether the first axis counts blocks."""
        return self.axes[:1] == (BLOCK_AXIS,)


# By the path of names in the tree of parameters, such as `blocks/attention/query/kernel`.
Table = Mapping[str, Parameter]


def dense(inputs: tuple[str, ...], outputs: tuple[str, ...], part: Part) -> dict[str, Parameter]:
    """The kernel and the bias of a dense layer or of a convolution."""
    return {
        "kernel": Parameter((*inputs, *outputs), "kernel", part),
        "bias": Parameter(outputs, "bias", part),
    }


def norm(axis: str, part: Part) -> dict[str, Parameter]:
    """The scale and the bias of a normalisation."""
    return {"scale": Parameter((axis,), "scale", part), "bias": Parameter((axis,), "bias", part)}


def nested(prefix: str, table: Table, part: Part | None = None) -> dict[str, Parameter]:
    """The same parameters below `prefix`, all of them of another part if one is given."""
    return {
        f"{prefix}/{path}": parameter if part is None else replace(parameter, part=part)
        for path, parameter in table.items()
    }


def stacked(table: Table) -> dict[str, Parameter]:
    """The parameters of equal blocks, stacked on a new first axis."""
    return {
        path: replace(parameter, axes=(BLOCK_AXIS, *parameter.axes))
        for path, parameter in table.items()
    }


def path_of(key_path: tuple[object, ...]) -> str:
    """A key path of `jax.tree_util` as names joined with "/"."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def find(table: Table, path: str) -> Parameter | None:
    """The parameter that an array of a training state belongs to, or None.

    Optimizer moments and averaged weights have the path of their parameter after a path of their
    own (`opt_state/0/mu/head/kernel`), so the longest end of the path that is in the table counts.
    """
    names = path.split("/")
    ends = ("/".join(names[first:]) for first in range(len(names)))
    return next((table[end] for end in ends if end in table), None)


def moments(table: Table, params: Any, opt_state: Any) -> dict[str, Parameter]:
    """Describes the arrays of an optimizer that have other axes than their parameters.

    Such as the means over rows and columns that stand for a factored second moment. They have those
    axes of their parameter whose lengths they have, in its order. All other axes are called
    `other`.

    Args:
      table: describes the parameters.
      params: their shapes, nested by name.
      opt_state: the shapes of the optimizer's state.

    Returns:
      Entries by the paths in `opt_state`, which `find` takes before the parameters' own.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    shapes = {path_of(key_path): leaf.shape for key_path, leaf in leaves}
    found = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        path = path_of(key_path)
        names = path.split("/")
        # An optimizer may number several arrays of one parameter.
        ends = ("/".join(names[i:j]) for j in (len(names), -1) for i in range(len(names)))
        owner = next((end for end in ends if end in shapes), None)
        if owner is None:
            if leaf.shape:
                found[path] = Parameter((_OTHER,) * leaf.ndim, "embedding", "block")
        elif leaf.shape != shapes[owner] or not path.endswith(owner):
            axes = _kept_axes(table[owner], shapes[owner], leaf.shape)
            found[path] = replace(table[owner], axes=axes)
    return found


def _kept_axes(
    parameter: Parameter, lengths: tuple[int, ...], kept: tuple[int, ...]
) -> tuple[str, ...]:
    """The names of the axes whose lengths are kept.

    Where several axes have one length the first counts; which one it is changes no place.
    """
    names = []
    rest = iter(zip(parameter.axes, lengths, strict=True))
    for length in kept:
        names.append(next((name for name, each in rest if each == length), _OTHER))
    return tuple(names)


def described(table: Table, path: str, ndim: int) -> Parameter:
    """The parameter at exactly this path of a tree of parameters.

    Raises:
      UserError: it is missing from the table, or the table gives it another number of axes.
    """
    parameter = table.get(path)
    if parameter is None:
        raise missing(path)
    check_axes(path, parameter, ndim)
    return parameter


def missing(path: str) -> UserError:
    """The error for an array that the table lacks."""
    return UserError(
        f"parameter {path!r} is not in the table of parameters; describe its axes, role and part "
        "where its family or objective lists its parameters"
    )


def check_axes(path: str, parameter: Parameter, ndim: int) -> None:
    """Checks that an array has as many axes as the table names.

    Raises:
      UserError: it has not.
    """
    if ndim != len(parameter.axes):
        raise UserError(
            f"parameter {path!r} has {ndim} axes, and the table of parameters names "
            f"{len(parameter.axes)}: {', '.join(parameter.axes)}"
        )
