"""Which parameters train, and at what share of the rate: patterns over their paths."""

import logging
import re
from collections.abc import Collection, Sequence

import jax
import numpy as np

from vit_jax.errors import UserError
from vit_jax.models.functional import Params
from vit_jax.schema import nearest

_log = logging.getLogger(__name__)

# Their parameters are stacked, with the block's number as first axis.
_BLOCKS = "blocks"
# What follows the blocks; all else outside them comes before.
_AFTER = ("norm", "pooling", "pre_logits", "head")


def rate_factors(
    params: Params,
    *,
    freeze: Sequence[str],
    rates: Sequence[tuple[str, float]],
    layer_decay: float | None,
) -> Params:
    """The factor of the rate for each parameter, 0 for those that are frozen.

    Patterns are regular expressions that match whole paths: `head/.*` matches `head/kernel`, `head`
    does not. Stacked parameters have one path a block, `blocks/3/attention/query/kernel`, so that
    `blocks/[0-5]/.*` are the first six.

    Args:
      params: arrays, or their shapes.
      freeze: patterns of what does not train.
      rates: patterns with positive factors; the first that matches a parameter counts.
      layer_decay: a factor d in (0, 1) for each layer below the head, times that of `rates`, as in
          BEiT (arXiv 2106.08254) and MAE (arXiv 2111.06377): block i of L has d ** (L - i), what
          comes before the blocks d ** (L + 1), and what follows them 1.

    Returns:
      float32 numpy arrays that broadcast against the parameters: [depth, 1, ...] for blocks,
      else [1, ...].

    Raises:
      UserError: a pattern is no regular expression, matches nothing or would be ignored; or
          nothing is left to train.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    paths = [_paths(key_path, leaf) for key_path, leaf in leaves]
    factors = _factors([path for of_leaf in paths for path in of_leaf], freeze, rates, layer_decay)
    arrays, trained, total = [], 0, 0
    for of_leaf, (_, leaf) in zip(paths, leaves, strict=True):
        values = np.array([factors[path] for path in of_leaf], np.float32)
        trained += leaf.size // len(values) * np.count_nonzero(values)
        total += leaf.size
        arrays.append(values.reshape((-1, *(1,) * leaf.ndim)[: leaf.ndim]))
    if freeze:
        _log.info("training %s of %s parameters", f"{trained:,}", f"{total:,}")
    return jax.tree.unflatten(treedef, arrays)


def _paths(key_path: tuple, leaf: jax.ShapeDtypeStruct) -> list[str]:
    """The path of a parameter, or those of the blocks' parameters that it stacks."""
    path = jax.tree_util.keystr(key_path, simple=True, separator="/")
    if not _is_block(path):
        return [path]
    rest = path.removeprefix(f"{_BLOCKS}/")
    return [f"{_BLOCKS}/{block}/{rest}" for block in range(leaf.shape[0])]


def _is_block(path: str) -> bool:
    return path.startswith(f"{_BLOCKS}/")


def _factors(
    paths: list[str],
    freeze: Sequence[str],
    rates: Sequence[tuple[str, float]],
    layer_decay: float | None,
) -> dict[str, float]:
    factors = dict.fromkeys(paths, 1.0) if layer_decay is None else _by_layer(paths, layer_decay)
    decided: set[str] = set()
    for pattern in freeze:
        decided |= _matches(pattern, paths, "config.optimizer.freeze")
    if len(decided) == len(paths):
        raise UserError("config.optimizer.freeze: nothing is left to train; freeze less")
    factors.update(dict.fromkeys(decided, 0.0))
    where = "config.optimizer.rates"
    for pattern, factor in rates:
        if factor <= 0:
            raise UserError(
                f"{where}: the factor of {pattern!r} must be positive, not {factor}; optimizer."
                "freeze keeps parameters as they are"
            )
        matches = _matches(pattern, paths, where) - decided
        if not matches:
            raise UserError(
                f"{where}: {pattern!r} would be ignored: all that it matches is frozen or has the "
                "rate of a pattern before it; drop it, or put it first"
            )
        for path in matches:
            factors[path] *= factor
        decided |= matches
    return factors


def _by_layer(paths: list[str], decay: float) -> dict[str, float]:
    where = "config.optimizer.layer_decay"
    if not 0 < decay < 1:
        raise UserError(f"{where}: must be above 0 and below 1, not {decay}; null is no decay")
    blocks = {path: int(path.split("/")[1]) for path in paths if _is_block(path)}
    if not blocks:
        raise UserError(f"{where}: would be ignored: the model has no blocks; leave it out")
    depth = max(blocks.values()) + 1

    def layers_above(path: str) -> int:
        if path in blocks:
            return depth - blocks[path]
        first, *_ = path.split("/")
        return 0 if first in _AFTER else depth + 1

    return {path: decay ** layers_above(path) for path in paths}


def _matches(pattern: str, paths: Collection[str], where: str) -> set[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{where}: {pattern!r} is no regular expression: {error}") from error
    matches = {path for path in paths if compiled.fullmatch(path)}
    if not matches:
        inside = f"{pattern}/.*"
        is_group = any(path.startswith(f"{pattern}/") for path in paths)
        hint = f"; did you mean {inside!r}?" if is_group else nearest(pattern, paths)
        raise UserError(f"{where}: {pattern!r} matches no parameter's whole path{hint}")
    return matches
