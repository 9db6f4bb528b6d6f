"""The files in a tar, found from its start to its end; of compressed tars, none.

A file is a header of 512 bytes and its content, filled up to 512. A name or a size that does not
fit into the header stands in a file of its own before it (GNU's long names; pax headers, POSIX.1).
The standard library parses each header; this module knows how they follow each other. The library
itself would open the tar, and keep an object for each file.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from vit_jax.data.sources.forward import ForwardReader
from vit_jax.data.sources.index_file import Shard
from vit_jax.errors import UserError

BLOCK = tarfile.BLOCKSIZE
_COMPRESSED = {
    b"\x1f\x8b": "gzip -d",
    b"BZh": "bzip2 -d",
    b"\xfd7zXZ": "xz -d",
    b"(\xb5/\xfd": "zstd -d",
}
_MOST_HEADER = 2**20
_ORDINARY = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_ABOUT_THE_NEXT = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE),
)
_WITHOUT_CONTENT = (
    *(tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)


class Member(NamedTuple):
    """An ordinary file in a tar: the bytes start <= i < stop of the tar are its content."""

    name: str
    start: int
    stop: int


def members(reader: ForwardReader) -> Iterator[Member]:
    """The ordinary files of a tar, in their order.

    Raises:
      UserError: the tar cannot be read, is compressed, damaged or cut.
    """
    place = 0
    name: str | None = None  # What stands before a header is about the file after it.
    size: int | None = None
    try:
        while (header := _header_at(reader, place)) is not None:
            start = place + BLOCK
            length = header.size if size is None else size
            stop = start if header.type in _WITHOUT_CONTENT else start + length
            place = start + -(-(stop - start) // BLOCK) * BLOCK
            if stop > reader.shard.size:
                raise _broken(reader.shard, f"it was cut: it ends within {name or header.name}")
            if header.type in _ABOUT_THE_NEXT:
                if stop - start > _MOST_HEADER:
                    raise ValueError(f"a name at byte {start:,} takes {stop - start:,} bytes")
                data = reader.read(start, stop - start)
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    name = _text(data)
                elif header.type == tarfile.XHDTYPE:
                    fields = _pax_fields(data)
                    name = fields.get("path", name)
                    size = int(fields["size"]) if "size" in fields else None
                continue
            if header.type in _ORDINARY:
                yield Member(name or header.name, start, stop)
            name = size = None
    except UserError:
        raise
    except (OSError, EOFError, ValueError) as error:
        raise _broken(reader.shard, str(error)) from error


def _header_at(reader: ForwardReader, place: int) -> tarfile.TarInfo | None:
    """The header that begins at a byte; None at the end of the tar."""
    block = reader.read(place, BLOCK)
    if place == 0 and (remedy := _unpacks(block)):
        raise _broken(reader.shard, f"it is compressed; unpack it by {remedy}")
    if len(block) < BLOCK:
        raise _broken(reader.shard, "it was cut: the blocks that end a tar are missing")
    if not any(block):
        return None
    if (header := header_of(block)) is None:
        raise _broken(reader.shard, f"there is no header at byte {place:,}")
    return header


def header_of(block: bytes) -> tarfile.TarInfo | None:
    """What a header says; None if it is none, or damaged."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _pax_fields(data: bytes) -> dict[str, str]:
    """The lines `LENGTH KEY=VALUE` of a pax header; LENGTH is that of the line."""
    fields = {}
    while data and data[0]:
        length = int(data[: data.index(b" ")])
        key, _, value = data[:length].partition(b" ")[2].removesuffix(b"\n").partition(b"=")
        if length <= 0:
            raise ValueError("a pax header is damaged")
        fields[_text(key)] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return fields


def _unpacks(block: bytes) -> str | None:
    """What unpacks a file that begins so; None if it is not compressed."""
    return next((by for magic, by in _COMPRESSED.items() if block.startswith(magic)), None)


def _broken(shard: Shard, reason: str) -> UserError:
    return UserError(f"{shard.path}: not a whole tar ({reason}); restore it")
