"""The downloaded archives that a data set is prepared from: found, unpacked if need be, indexed."""

from __future__ import annotations

import errno
import gzip
import hashlib
import itertools
import logging
import math
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.preparation.processes import each_piece
from vit_jax.data.preparation.progress import Lines
from vit_jax.data.preparation.shards import full_disk
from vit_jax.data.preparation.tar_index import (
    Part,
    has_index,
    list_tar,
    write_index,
)
from vit_jax.errors import UserError

_GZIP = b"\x1f\x8b"
# Class tars that a worker lists at once, and bytes of a compressed archive that are read at once.
_CLASSES_AT_ONCE, _CHUNK = 16, 2**22
_WORDNET_ID = re.compile(r"n\d{8}")

_log = logging.getLogger(__name__)


class ClassTar(NamedTuple):
    """A tar of the images of one class.

    Attributes:
      name: the class, a WordNet id.
      path: the file on the disk; all class tars may lie in one.
      start: its first byte there.
      size: in bytes.
    """

    name: str
    path: str
    start: int
    size: int


def missing_archives(dataset: str, missing: list[str], directory: Path, source: str) -> UserError:
    """What to download, and where to put it.

    Args:
      source: where the files are to be had.
    """
    verb = "is" if len(missing) == 1 else "are"
    return UserError(
        f"--dataset={dataset}: {' and '.join(missing)} {verb} not in {directory}; download "
        f"{'it' if len(missing) == 1 else 'them'} from {source} into that directory, or name "
        "another one with --archives=DIR"
    )


def class_tars(path: Path, work: Path) -> list[ClassTar]:
    """The class tars in an archive or a directory, sorted by class.

    A compressed archive has no random access, so it is unpacked to a plain tar in `work`.

    Args:
      path: a tar of class tars, in folders or not, which may be compressed with gzip; or a
        directory that such a tar was unpacked to.

    Raises:
      UserError: there is no class tar, one comes twice, or the archive is damaged.
    """
    if path.is_dir():
        files = sorted(path.rglob("*.tar"))
        found = [ClassTar(file.stem, str(file), 0, file.stat().st_size) for file in files]
    else:
        plain = str(unpacked(path, work))
        members = list(list_tar(plain))
        found = [ClassTar(Path(m.name).stem, plain, m.start, m.size) for m in members]
        tars = [Path(m.name).suffix == ".tar" for m in members]
        found = [each for each, is_tar in zip(found, tars, strict=True) if is_tar]
    found = sorted(each for each in found if _WORDNET_ID.fullmatch(each.name))
    if not found:
        raise UserError(
            f"{path}: no class tar in it (named by a WordNet id, such as n01440764.tar); it is not "
            "the archive that was meant, or its download was not completed"
        )
    for one, other in itertools.pairwise(found):
        if one.name == other.name:
            raise UserError(f"{path}: class tar {one.name}.tar is in it twice; remove one")
    return found


def index_class_tars(directory: Path, tars: list[ClassTar], workers: int) -> None:
    """Indexes all images of class tars, unless that was done.

    Args:
      workers: processes that read the headers of the tars; 0 is this one.

    Raises:
      UserError: a tar is damaged.
    """
    key = _key([Path(path) for path in {tar.path: None for tar in tars}])
    if has_index(directory, key):
        return
    files = list(dict.fromkeys(tar.path for tar in tars))
    write_index(directory, key, files, _parts(tars, files, workers))


def index_flat_tar(directory: Path, path: Path, label_of: dict[str, int]) -> None:
    """Indexes the images of a tar without classes, unless that was done.

    Args:
      label_of: the label of each image, by its file name.

    Raises:
      UserError: the tar is damaged, or an image has no label.
    """
    # Labels come from another file, which may be exchanged alone.
    labelled = repr(sorted(label_of.items())).encode()
    key = f"{_key([path])} {hashlib.blake2b(labelled, digest_size=8).hexdigest()}"
    if has_index(directory, key):
        return
    members = [each._replace(name=Path(each.name).name) for each in list_tar(str(path))]
    for each in members:
        if each.name not in label_of:
            raise UserError(f"{path}: no label is known of {each.name}; download it again")
    labels = np.array([label_of[each.name] for each in members], np.int32)
    write_index(directory, key, [str(path)], [Part(members, labels, "", 0)])


def unpacked(path: Path, work: Path) -> Path:
    """A tar that can be read at any position: the file itself, or its plain copy in `work`.

    Raises:
      UserError: the disk has no room for the copy, or the archive is damaged.
    """
    with open(path, "rb") as file:
        if file.read(2) != _GZIP:
            return path
    plain = work / "unpacked.tar"
    done = work / f"unpacked.{_key([path])}"
    if done.exists():
        return plain
    work.mkdir(parents=True, exist_ok=True)
    size, free = path.stat().st_size, shutil.disk_usage(work).free
    if free < size:
        raise UserError(
            f"{path} is compressed, and {work} has {free / 2**30:,.0f} GiB for its plain copy, "
            f"which takes {size / 2**30:,.0f} GiB and more; make room, or unpack it elsewhere and "
            "name the directory with --archives=DIR"
        )
    _log.info("%s is compressed: a plain copy is made in %s", path, work)
    try:
        lines = Lines()
        with open(path, "rb") as raw, gzip.open(raw, "rb") as packed, open(plain, "wb") as file:
            while chunk := packed.read(_CHUNK):
                file.write(chunk)
                lines.say(f"unpacking {path.name}", raw.tell(), size)
            file.flush()
            os.fsync(file.fileno())
    except EOFError as error:
        raise UserError(f"{path} ends too early; complete its download") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        plain.unlink()
        raise full_disk(work) from error
    done.touch()
    return plain


class _Listing:
    """Lists some class tars at a time; a worker's task."""

    def __init__(self, tars: list[ClassTar]) -> None:
        self._tars = tars

    def __len__(self) -> int:
        return math.ceil(len(self._tars) / _CLASSES_AT_ONCE)

    def __getitem__(self, index: int) -> dict[str, Any]:
        some = self._tars[index * _CLASSES_AT_ONCE : (index + 1) * _CLASSES_AT_ONCE]
        return {"members": [list(list_tar(tar.path, tar.start, tar.size)) for tar in some]}


def _parts(tars: list[ClassTar], files: list[str], workers: int) -> Iterator[Part]:
    numbers = {path: number for number, path in enumerate(files)}
    listing = _Listing(tars)
    pieces = each_piece(listing, len(listing), workers)
    listed = itertools.chain.from_iterable(piece["members"] for piece in pieces)
    lines = Lines()
    for label, (tar, members) in enumerate(zip(tars, listed, strict=True)):
        lines.say("finding the images in class tars", label, len(tars))
        yield Part(members, np.full(len(members), label), f"{tar.name}/", numbers[tar.path])


def _key(paths: list[Path]) -> str:
    """What tells files from others without reading them."""
    stats = [(path.name, path.stat()) for path in paths]
    text = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
