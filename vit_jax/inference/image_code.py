"""The code that decodes and resizes images, as an archive that runs without this package.

What a program is served with must see the same pixels as `predict`. So it gets the same code: the
modules of `data/images` that need Pillow and NumPy alone, under the name `served_images`.
"""

import ast
import importlib.util
import io
import re
import zipfile
from pathlib import Path

PACKAGE = "served_images"
_ROOM = "vit_jax.data.images"
_ENTRIES = ("decoding", "bilinear")
_ABOUT = f'"""Decodes and resizes images as vit_jax does; made of its package {_ROOM}."""\n'


def image_code() -> bytes:
    """Returns a zip archive that Python imports from; equal sources give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {"__init__": _ABOUT, **_modules()}.items():
            # Dated 1980-01-01.
            archive.writestr(zipfile.ZipInfo(f"{PACKAGE}/{name}.py"), text)
    return buffer.getvalue()


def _modules() -> dict[str, str]:
    """The sources of the entries and of all that they import from their room, renamed."""
    sources: dict[str, str] = {}
    waiting = list(_ENTRIES)
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        spec = importlib.util.find_spec(f"{_ROOM}.{name}")
        assert spec is not None and spec.origin is not None
        text = Path(spec.origin).read_text(encoding="utf-8")
        for module in _imported(text):
            if not module.startswith(f"{_ROOM}."):
                raise ValueError(f"{_ROOM}.{name} imports {module}, which is not served with it")
            waiting.append(module.removeprefix(f"{_ROOM}."))
        sources[name] = re.sub(rf"\b{re.escape(_ROOM)}\b", PACKAGE, text)
    return dict(sorted(sources.items()))


def _imported(text: str) -> list[str]:
    """The modules of this package that a source imports."""
    return [
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vit_jax")
    ]
