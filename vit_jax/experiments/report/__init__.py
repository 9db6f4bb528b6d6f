"""A page of a run, or of several side by side. It needs the extra `plots`."""

import importlib.util

from vit_jax.errors import UserError


def check_plots() -> None:
    """Checks that the extra is installed; call it before a module of this package is imported.

    Raises:
      UserError: it is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("jinja2", "matplotlib")):
        raise UserError("a report needs the extra `plots`: pip install 'vit_jax[plots]'")
