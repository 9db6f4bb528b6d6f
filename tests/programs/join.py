"""Joins other processes as the flags say, for at most `--limit` seconds; then prints and ends."""

import argparse
import logging
import sys

import jax

from vit_jax.commands.processes import add_process_flags, explain, fail_together, join
from vit_jax.errors import UserError


def main() -> int:
    """Returns the exit code, as `vit_jax.__main__.main` does."""
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=float, default=60)
    add_process_flags(parser)
    arguments = parser.parse_args()
    try:
        with fail_together():
            join(arguments, limit=arguments.limit)
    except UserError as error:
        return explain(error)
    print(jax.process_count(), jax.config.values["jax_cuda_visible_devices"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
