"""Runs a script where this package is missing.

python -m tests.programs.without_package FILE ARGUMENTS
"""

import runpy
import sys

if __name__ == "__main__":
    sys.modules["vit_jax"] = None  # type: ignore[assignment]
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
