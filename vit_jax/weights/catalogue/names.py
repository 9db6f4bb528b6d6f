"""Released weight files by name, and what a user may give as weights."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vit_jax.errors import UserError
from vit_jax.schema import nearest
from vit_jax.weights.catalogue import augreg
from vit_jax.weights.catalogue.download import STORAGE, fetch
from vit_jax.weights.catalogue.released import RELEASES, Release

# What may stand before a name: the same file's address.
_ADDRESS = re.compile(rf"(?:(?:gs:/|{re.escape(STORAGE)})/)?(?:vit|mixer|bit)_models/")
_FILE_TYPES = (".npz", ".safetensors")


def releases(filter: str = "") -> list[Release]:
    """Released files; of AugReg's 50,000, those that its authors recommend.

    Args:
      filter: part of a file's or its model's name, see `matches`.
    """
    listed = [*RELEASES, *augreg.recommended()]
    return [r for r in listed if matches(r.name, filter) or matches(r.model, filter)]


def matches(name: str, part: str) -> bool:
    """Whether `part` occurs in `name`; upper and lower case are alike, and so are `/`, `_`, `-`."""
    return _key(part) in _key(name)


def find(name: str) -> Release:
    """The released file of a name.

    Args:
      name: such as `imagenet21k/ViT-B_16`, or `R50+ViT-L_32` if one prefix alone has it; any file
          name of AugReg's, or `augreg/B_16` and `augreg/B_16--imagenet2012-res_384`, for which
          see `augreg.choose`. `.npz` at the end and the storage's address before it do no harm.

    Raises:
      UserError: there is no such file, or there are several.
    """
    text = _ADDRESS.sub("", name, count=1).removesuffix(".npz")
    listed = releases()
    found = [r for r in listed if _key(r.name) == _key(text)]
    found = found or [r for r in listed if _key(_stem(r)) == _key(text)]
    if len(found) > 1:
        raise UserError(f"{name!r} may be {' or '.join(r.name for r in found)}: write one of them")
    if found:
        return found[0]
    stem = text.removeprefix("augreg/")
    release = augreg.parse(stem) or (augreg.choose(stem) if stem != text else None)
    if release is None:
        known = [r.name for r in listed] + [f"augreg/{model}" for model in augreg.MODELS]
        known += [_stem(r) for r in listed]
        guess = nearest(text, known)
        if "did you mean" not in guess:  # but a list, for which there is a command
            guess = ""
        raise UserError(
            f"no weights are named {name!r}{guess} "
            "(python -m vit_jax models lists the names; or give a file or a run's directory)"
        )
    return release


def resolve(weights: str | os.PathLike[str]) -> Path:
    """The file or directory that a user means by `weights`; a released file is downloaded.

    Args:
      weights: the path of a file or of a run's directory, which comes first, or a name, as in
          `find`.

    Raises:
      UserError: there is neither, or the download fails.
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
