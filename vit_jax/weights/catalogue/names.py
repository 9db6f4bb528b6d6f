"""Released weight files by name, and the file that a user means by `--weights`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vit_jax.errors import UserError
from vit_jax.spelling import near
from vit_jax.weights.catalogue import augreg
from vit_jax.weights.catalogue.download import STORAGE, fetch
from vit_jax.weights.catalogue.released import RELEASES, Release

# An address of the storage, which may come before a name.
_ADDRESS = re.compile(rf"(?:(?:gs:/|{re.escape(STORAGE)})/)?(?:vit|mixer|bit)_models/")
_FILE_TYPES = (".npz", ".safetensors")


def releases(filter: str = "") -> list[Release]:
    """Lists released files; from AugReg's 50,000, those that its authors recommend.

    Args:
      filter: part of the name of a file or of its model, see `matches`.
    """
    listed = [*RELEASES, *augreg.recommended()]
    return [r for r in listed if matches(r.name, filter) or matches(r.model, filter)]


def matches(name: str, part: str) -> bool:
    """Whether `part` occurs in `name`; case does not matter, and `/`, `_` and `-` are equal."""
    return _key(part) in _key(name)


def find(name: str) -> Release:
    """Finds the released file that has a name.

    Args:
      name: such as `imagenet21k/ViT-B_16`, or `R50+ViT-L_32` if only one prefix has it; any file
        name of AugReg, or `augreg/B_16` and `augreg/B_16--imagenet2012-res_384` (see
        `augreg.choose`). The storage's address before it and `.npz` after it are ignored.

    Raises:
      UserError: no file or several files have this name.
    """
    text = _ADDRESS.sub("", name, count=1).removesuffix(".npz")
    listed = releases()
    found = [r for r in listed if _key(r.name) == _key(text)]
    found = found or [r for r in listed if _key(_stem(r)) == _key(text)]
    if len(found) > 1:
        raise UserError(f"{name!r} may be {' or '.join(r.name for r in found)}; write one of them")
    if found:
        return found[0]
    stem = text.removeprefix("augreg/")
    release = augreg.parse(stem) or (augreg.choose(stem) if stem != text else None)
    if release is None:
        known = [r.name for r in listed] + [f"augreg/{model}" for model in augreg.MODELS]
        known += [_stem(r) for r in listed]
        meant = near(text, known)
        guess = "" if meant is None else f"; did you mean {meant!r}?"
        raise UserError(
            f"no weights are named {name!r}{guess} "
            "(python -m vit_jax models lists the names; or give a file or a run's directory)"
        )
    return release


def resolve(weights: str | os.PathLike[str]) -> Path:
    """Returns the file or directory that a user means; a released file is downloaded.

    Args:
      weights: the path of a file or of a directory with one, otherwise a name as in `find`.

    Raises:
      UserError: neither exists, or the download fails.
    """
    text = os.fspath(weights)
    path = Path(text).expanduser()
    if os.path.exists(path):
        return path
    if _must_be_a_path(text, path):
        raise UserError(f"{text}: no such file or directory; check the path")
    return fetch(find(text).url)


def _must_be_a_path(text: str, path: Path) -> bool:
    in_a_directory = path.parent != Path() and os.path.isdir(path.parent)
    return text.startswith(("./", "../", "/", "~")) or (
        in_a_directory and path.suffix in _FILE_TYPES
    )


def _stem(release: Release) -> str:
    return release.name.partition("/")[2]


def _key(text: str) -> str:
    return re.sub("[/_-]", "_", text.lower())
