"""Released weight files by name, and the file or folder that a user means by `--weights`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vit_jax.errors import UserError
from vit_jax.spelling import near
from vit_jax.storage.paths import is_bucket
from vit_jax.weights.catalogue import augreg
from vit_jax.weights.catalogue.buckets import fetch_from_bucket
from vit_jax.weights.catalogue.download import STORAGE, fetch, is_cached
from vit_jax.weights.catalogue.hub import SCHEME, HubName, cached_repository, fetch_repository
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
            "(python -m vit_jax models lists the names; or give a file, a run's directory, or "
            "hf://ORG/NAME of the Hugging Face Hub)"
        )
    return release


def resolve(weights: str | os.PathLike[str]) -> Path:
    """Returns the file or directory that a user means; what is not here is downloaded.

    Args:
      weights: the path of a file or of a directory with one, on a disk or in a bucket,
        `hf://ORG/NAME[@REVISION]` of the Hugging Face Hub, otherwise a name as in `find`.

    Raises:
      UserError: none of them exists, or the download fails.
    """
    text = os.fspath(weights)
    if text.startswith(SCHEME):
        return fetch_repository(HubName.parse(text))
    if is_in_bucket(text):
        return fetch_from_bucket(text)
    path = Path(text).expanduser()
    if os.path.exists(path):
        return path
    if _must_be_a_path(text, path):
        raise UserError(f"{text}: no such file or directory; check the path")
    return fetch(find(text).url)


def is_in_bucket(weights: str) -> bool:
    """Whether it is an object of a user's bucket: not of the public ones of released files."""
    return is_bucket(weights) and _ADDRESS.match(weights) is None


def is_here(weights: str) -> bool:
    """Whether `resolve` needs no network, for a path, a commit of the Hub or a listed name.

    For any other name it is False. This asks no network either.
    """
    if weights.startswith(SCHEME):
        name = HubName.parse(weights)
        return name.is_pinned and cached_repository(name) is not None
    if os.path.exists(Path(weights).expanduser()):
        return True
    return any(r.name == weights and is_cached(r.url) for r in releases())


def pinned(weights: str) -> str:
    """The name of weights that means the same ones tomorrow; downloads those of the Hub.

    Args:
      weights: as for `resolve`. One of the Hub gets its commit as revision; others stay.

    Raises:
      UserError: as `resolve`.
    """
    if not weights.startswith(SCHEME):
        return weights
    name = HubName.parse(weights)
    return str(name._replace(revision=fetch_repository(name).name))


def is_pin_of(stored: object, weights: str) -> bool:
    """Whether a recorded name is `pinned` of one whose revision is no commit.

    Args:
      stored: what a run's record holds in its place.
      weights: as a user names them.
    """
    if not weights.startswith(SCHEME) or not isinstance(stored, str):
        return False
    name = HubName.parse(weights)
    prefix = f"{SCHEME}{name.repository}@"
    if name.is_pinned or not stored.startswith(prefix):
        return False
    return name._replace(revision=stored.removeprefix(prefix)).is_pinned


def _must_be_a_path(text: str, path: Path) -> bool:
    in_a_directory = path.parent != Path() and os.path.isdir(path.parent)
    return text.startswith(("./", "../", "/", "~")) or (
        in_a_directory and path.suffix in _FILE_TYPES
    )


def _stem(release: Release) -> str:
    return release.name.partition("/")[2]


def _key(text: str) -> str:
    return re.sub("[/_-]", "_", text.lower())
