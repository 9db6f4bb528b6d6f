"""Claims a run's directory, prints that, and holds it until standard input ends.

python -m tests.programs.hold_directory DIR CONFIG_AS_JSON
"""

import json
import sys
from pathlib import Path

from vit_jax.runs.directory import RunDirectory

if __name__ == "__main__":
    run = RunDirectory(Path(sys.argv[1]), json.loads(sys.argv[2]), writer=True)
    print("claimed", flush=True)
    sys.stdin.read()
