"""A command in this process, in the place of a process of its own."""

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout

import jax

from vit_jax.__main__ import main


def run_here(arguments: Sequence[str]) -> str:
    """Runs a command of `vit_jax` to its end; float32 is of full precision, as in `start_on`.

    Returns:
      What it printed, and what it logged.
    """
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    logging.getLogger("vit_jax").addHandler(handler)
    try:
        with jax.default_matmul_precision("highest"), redirect_stdout(printed):
            assert main(list(arguments)) == 0
    finally:
        logging.getLogger("vit_jax").removeHandler(handler)
    return printed.getvalue()
