"""A command that is held up in a save or an evaluation, so that a signal comes in the middle.

Arguments: `save` or `evaluation`, a file that appears when it is held up, those of the command.
"""

import functools
import sys
import time
from pathlib import Path
from typing import Any

from vit_jax.__main__ import main
from vit_jax.inference.passes import Pass
from vit_jax.runs import file_list

MOMENTS: dict[str, tuple[Any, str]] = {"save": (file_list, "write"), "evaluation": (Pass, "run")}
SECONDS = 2.0


def hold(moment: str, marker: Path) -> None:
    """The next call that begins this sleeps first."""
    owner, name = MOMENTS[moment]
    call = getattr(owner, name)

    @functools.wraps(call)
    def held(*given: Any, **options: Any) -> Any:
        if not marker.exists():
            marker.touch()
            time.sleep(SECONDS)
        return call(*given, **options)

    setattr(owner, name, held)


if __name__ == "__main__":
    hold(sys.argv[1], Path(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
