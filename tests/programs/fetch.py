"""Downloads a released file: python -m tests.programs.fetch URL."""

import sys

from vit_jax.weights.catalogue.download import fetch

if __name__ == "__main__":
    fetch(sys.argv[1])
