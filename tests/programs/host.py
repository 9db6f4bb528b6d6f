"""Runs a command of `vit_jax` as on a host of its own, with short intervals of a run's claim.

The host's directory is the current one, its home and where temporary files go; it is given first,
then the seconds after which a claim is stale.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(sys.argv[1])
    (root / "tmp").mkdir(parents=True, exist_ok=True)
    os.chdir(root)
    os.environ |= {"HOME": str(root), "TMPDIR": str(root / "tmp")}
    os.environ |= {"XDG_CACHE_HOME": str(root / "cache"), "VIT_JAX_CACHE": str(root / "cache/vit")}

    from vit_jax.__main__ import main
    from vit_jax.runs import claim
    from vit_jax.storage import retrying

    stale = float(sys.argv[2])
    claim.INTERVALS = claim.Intervals(renew=stale / 4, stale=stale, watch=0.1)
    retrying.retrying.patience = retrying.Patience(first=0.05, longest=1.0, total=60.0)
    sys.exit(main(sys.argv[3:]))
