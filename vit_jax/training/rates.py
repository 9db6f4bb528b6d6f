"""Which parameters train and at what share of the rate, by patterns over their paths."""

import logging
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import numpy as np

from vit_jax.errors import UserError
from vit_jax.models.functional import Params
from vit_jax.parameters import Parameter, Part, Table, described, path_of
from vit_jax.spelling import nearest

_log = logging.getLogger(__name__)

_RATES = "config.optimizer.rates"

# The parts that follow the blocks; all others outside the blocks come before them.
_AFTER: tuple[Part, ...] = ("norm", "pooling", "representation", "head")


class _Row(NamedTuple):
    """One parameter, or one block's part of a stacked parameter.

    Attributes:
      layers_above: layers between it and the head.
    """

    path: str
    is_block: bool
    layers_above: int


def rate_factors(
    params: Params,
    table: Table,
    *,
    freeze: Sequence[str],
    rates: Sequence[tuple[str, float]],
    layer_decay: float | None,
    where: str = _RATES,
) -> Params:
    """Returns the factor of the rate for each parameter; 0 freezes it.

    Patterns are regular expressions that match whole paths: `head/.*` matches `head/kernel`, `head`
    does not. A stacked parameter has a path for each block, `blocks/3/attention/query/kernel`, so
    that `blocks/[0-5]/.*` are the first six.

    Args:
      params: arrays, or their shapes.
      table: describes each of them.
      freeze: patterns of parameters that do not train.
      rates: patterns with positive factors; the first that matches a parameter counts.
      layer_decay: a factor d in (0, 1) for each layer below the head, multiplied with the factor of
          `rates`, as in BEiT (arXiv 2106.08254) and MAE (arXiv 2111.06377): block i of L has
          d ** (L - i), the parts before the blocks d ** (L + 1), and the parts after them 1.
      where: the key of the config that `rates` are.

    Returns:
      float32 numpy arrays that broadcast against the parameters: [depth, 1, ...] for stacked ones,
      otherwise [1, ...].

    Raises:
      UserError: a parameter is missing from the table; a pattern is not a regular expression,
          matches nothing or would be ignored; or nothing is left to train.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    rows = _rows([(path_of(key_path), leaf) for key_path, leaf in leaves], table)
    every_row = [row for of_leaf in rows for row in of_leaf]
    factors = _factors(every_row, freeze, rates, layer_decay, where)
    arrays = []
    for of_leaf, (_, leaf) in zip(rows, leaves, strict=True):
        values = np.array([factors[row.path] for row in of_leaf], np.float32)
        arrays.append(values.reshape((-1, *(1,) * leaf.ndim)[: leaf.ndim]))
    return jax.tree.unflatten(treedef, arrays)


def log_trained(params: Params, factors: Params) -> None:
    """Logs how many parameters have a factor above 0."""
    leaves = jax.tree.leaves(params)
    trained = sum(
        leaf.size // factor.size * np.count_nonzero(factor)
        for leaf, factor in zip(leaves, jax.tree.leaves(factors), strict=True)
    )
    total = sum(leaf.size for leaf in leaves)
    _log.info("training %s of %s parameters", f"{trained:,}", f"{total:,}")


def _rows(leaves: Sequence[tuple[str, jax.ShapeDtypeStruct]], table: Table) -> list[list[_Row]]:
    """For each parameter its rows: one, or one for each block."""
    parameters = [described(table, path, leaf.ndim) for path, leaf in leaves]
    blocks = [
        leaf.shape[0]
        for parameter, (_, leaf) in zip(parameters, leaves, strict=True)
        if _is_block(parameter)
    ]
    depth = max(blocks, default=0)

    def rows(path: str, parameter: Parameter, length: int) -> list[_Row]:
        outside = 0 if parameter.part in _AFTER else depth + 1
        if not parameter.is_stacked:
            return [_Row(path, False, outside)]
        is_block = _is_block(parameter)
        return [
            # The number follows the name of the stack.
            _Row(
                path.replace("blocks/", f"blocks/{i}/", 1),
                is_block,
                depth - i if is_block else outside,
            )
            for i in range(length)
        ]

    return [
        rows(path, parameter, leaf.shape[0] if leaf.ndim else 1)
        for parameter, (path, leaf) in zip(parameters, leaves, strict=True)
    ]


def _is_block(parameter: Parameter) -> bool:
    """Whether it is stacked over the model's blocks; a decoder of an objective is not."""
    return parameter.part == "block" and parameter.is_stacked


def _factors(
    rows: list[_Row],
    freeze: Sequence[str],
    rates: Sequence[tuple[str, float]],
    layer_decay: float | None,
    where: str,
) -> dict[str, float]:
    paths = [row.path for row in rows]
    factors = dict.fromkeys(paths, 1.0) if layer_decay is None else _by_layer(rows, layer_decay)
    decided: set[str] = set()
    for pattern in freeze:
        decided |= _matches(pattern, paths, "config.optimizer.freeze")
    if len(decided) == len(paths):
        raise UserError("config.optimizer.freeze: nothing is left to train; freeze less")
    factors.update(dict.fromkeys(decided, 0.0))
    for pattern, factor in rates:
        if factor < 0 or (factor == 0 and where == _RATES):
            least = "positive" if where == _RATES else "at least 0"
            hint = "; optimizer.freeze keeps parameters as they are" if where == _RATES else ""
            raise UserError(
                f"{where}: the factor of {pattern!r} must be {least}, not {factor}{hint}"
            )
        matches = _matches(pattern, paths, where) - decided
        if not matches:
            raise UserError(
                f"{where}: {pattern!r} would be ignored: all that it matches is frozen or matched "
                "by an earlier pattern; remove it, or put it first"
            )
        for path in matches:
            factors[path] *= factor
        decided |= matches
    return factors


def _by_layer(rows: list[_Row], decay: float) -> dict[str, float]:
    where = "config.optimizer.layer_decay"
    if not 0 < decay < 1:
        raise UserError(f"{where}: must be above 0 and below 1, not {decay}; null turns it off")
    if not any(row.is_block for row in rows):
        raise UserError(f"{where}: would be ignored: the model has no blocks; leave it out")
    return {row.path: decay**row.layers_above for row in rows}


def _matches(pattern: str, paths: Collection[str], where: str) -> set[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{where}: {pattern!r} is not a regular expression: {error}") from error
    matches = {path for path in paths if compiled.fullmatch(path)}
    if not matches:
        inside = f"{pattern}/.*"
        is_group = any(path.startswith(f"{pattern}/") for path in paths)
        hint = f"; did you mean {inside!r}?" if is_group else nearest(pattern, paths)
        raise UserError(f"{where}: {pattern!r} matches no parameter's whole path{hint}")
    return matches
