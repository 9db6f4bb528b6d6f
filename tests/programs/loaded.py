"""Imports modules and prints, as JSON, what that loads and who asks for the large frameworks.

    python -m tests.programs.loaded vit_jax.models vit_jax.training.step

TensorFlow and PyTorch are hidden, so that the answer does not depend on whether they are installed:
other libraries load them where they find them. "loaded" lists the top-level packages, and "asked"
the files that tried to import one of the hidden two.
"""

import importlib
import importlib.abc
import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

HIDDEN = ("tensorflow", "torch")


class Hiding(importlib.abc.MetaPathFinder):
    """Finds none of the hidden packages, and notes which files ask for them."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuses the hidden packages, and leaves all others to the finders after this one."""
        if name.partition(".")[0] not in HIDDEN:
            return None
        frame = sys._getframe(1)
        while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        self.asked.add(frame.f_code.co_filename)
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(modules: Sequence[str]) -> None:
    """Imports the modules in this order."""
    hiding = Hiding()
    sys.meta_path.insert(0, hiding)
    for module in modules:
        importlib.import_module(module)
    loaded = {name.partition(".")[0] for name in sys.modules}
    print(json.dumps({"loaded": sorted(loaded), "asked": sorted(hiding.asked)}))


if __name__ == "__main__":
    main(sys.argv[1:])
