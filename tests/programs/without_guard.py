"""A script without `if __name__ == "__main__"`: trains with data workers and counts its runs.

python without_guard.py CONFIG WORKDIR
"""

import sys
from pathlib import Path

from vit_jax.__main__ import main

config, workdir = sys.argv[1:]
with Path(f"{workdir}.runs").open("a") as runs:
    runs.write("run\n")
sys.exit(main(["train", f"--config={config}", f"--workdir={workdir}"]))
