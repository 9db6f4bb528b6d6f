"""The known weight layouts by name, and which of them a file is in."""

from __future__ import annotations

from collections.abc import Mapping

from vit_jax.errors import UserError
from vit_jax.spelling import nearest
from vit_jax.weights.layouts.google import GOOGLE
from vit_jax.weights.layouts.huggingface import HUGGINGFACE
from vit_jax.weights.layouts.layout import Configs, Layout
from vit_jax.weights.layouts.timm import TIMM
from vit_jax.weights.stored import AnyArray

_LAYOUTS = {layout.name: layout for layout in (GOOGLE, TIMM, HUGGINGFACE)}
_LISTED_AT_MOST = 40


def register_layout(layout: Layout) -> None:
    """Makes a layout known under its name; a layout of the same name is replaced."""
    _LAYOUTS[layout.name] = layout


def layout_names() -> tuple[str, ...]:
    """The names of all known layouts, in the order of their registration."""
    return tuple(_LAYOUTS)


def layout_named(name: str) -> Layout:
    """The layout of a name.

    Raises:
      UserError: no layout has this name.
    """
    if name not in _LAYOUTS:
        raise UserError(f"no layout {name!r}{nearest(name, _LAYOUTS)}")
    return _LAYOUTS[name]


def hub_configs() -> tuple[str, ...]:
    """The names of all config files that layouts keep beside a `model.safetensors`."""
    return tuple(dict.fromkeys(name for each in _LAYOUTS.values() for name in each.config_names))


def layout_of(arrays: Mapping[str, AnyArray], configs: Configs, stated: str | None) -> Layout:
    """The one layout that a file is in.

    Args:
      arrays: of the file, by name.
      configs: what lies beside it, by file name.
      stated: the layout that its description states; decides if several layouts match.

    Raises:
      UserError: no layout matches, or several do.
    """
    found = [layout for layout in _LAYOUTS.values() if layout.matches(arrays.keys(), configs)]
    if len(found) > 1:
        found = [layout for layout in found if layout.name == stated] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = [layout.name for layout in found]
        raise UserError(
            f"its names fit the layouts {' and '.join(names)}; state the right one in the "
            f'description beside the file, as in {{"layout": "{names[0]}"}}'
        )
    other = configs.get("config.json", {}).get("model_type", "vit")
    if other != "vit":
        raise UserError(
            f"config.json beside it has model_type={other!r}; give the file of a plain ViT, "
            "model_type='vit', or describe the model in NAME.json beside the file"
        )
    prefix = min(arrays, default="").partition(".")[0] + "."
    bare = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]
    within = [layout.name for layout in _LAYOUTS.values() if layout.matches(bare, configs)]
    if within and len(bare) == len(arrays):
        raise UserError(
            f"all its names start with {prefix!r}, and without it they fit the layout {within[0]}; "
            "save the weights of the model inside, under names without this prefix"
        )
    listed = [f"{name} {tuple(arrays[name].shape)}" for name in sorted(arrays)]
    more = f" and {len(listed) - _LISTED_AT_MOST} more" if len(listed) > _LISTED_AT_MOST else ""
    raise UserError(
        f"its names fit no known layout ({', '.join(_LAYOUTS)}): "
        f"{', '.join(listed[:_LISTED_AT_MOST]) or 'it holds no arrays'}{more}; give a file in one "
        "of these layouts"
    )
