"""The framing of TFRecord files: where each record lies, and whether it is whole.

A record is the length of its payload (8 bytes, little endian), a checksum of these 8 bytes, the
payload, and a checksum of it. Checksums are masked CRC-32C
(tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
"""

from __future__ import annotations

import google_crc32c
import numpy as np

from vit_jax.data.sources.forward import ForwardReader
from vit_jax.data.sources.index_file import Scanned, Shard
from vit_jax.errors import UserError

_HEAD, _TAIL = 12, 4
_GZIP = b"\x1f\x8b"


def scan_tfrecord(shard: Shard) -> Scanned:
    """Finds the records of a file by their lengths; their payloads are not looked at.

    Returns:
      `starts`, the byte at which each record's frame begins.

    Raises:
      UserError: the file cannot be read, ends within a record, or holds something else.
    """
    reader = ForwardReader(shard)
    starts: list[int] = []
    place = 0
    try:
        while place < shard.size:
            head = reader.read(place, _HEAD)
            if place == 0 and head.startswith(_GZIP):
                raise _broken(shard, "it is compressed; unpack it (gzip -d)")
            length = _length(head)
            if length is None and len(head) == _HEAD:
                raise _broken(shard, f"record {len(starts)}, at byte {place:,}, is damaged")
            stop = shard.size + 1 if length is None else place + _HEAD + length + _TAIL
            if stop > shard.size:
                raise _broken(
                    shard, f"it ends within record {len(starts)}, which begins at byte {place:,}"
                )
            starts.append(place)
            place = stop
    except UserError:
        raise
    except (OSError, EOFError) as error:
        raise _broken(shard, str(error)) from error
    return Scanned(len(starts), {"starts": np.array(starts, np.uint64)})


def payload(frame: bytes) -> bytes:
    """What a record holds.

    Args:
      frame: the record with its length and checksums.

    Raises:
      ValueError: the record is damaged.
    """
    data = frame[_HEAD:-_TAIL]
    if _length(frame) != len(data) or len(frame) < _HEAD + _TAIL:
        raise ValueError("its length differs: the file was changed, or is damaged")
    if _masked_crc(data) != frame[-_TAIL:]:
        raise ValueError("its checksum differs")
    return data


def _length(frame: bytes) -> int | None:
    """The length that a record states; None if its checksum does not fit."""
    if _masked_crc(frame[:8]) != frame[8:_HEAD]:
        return None
    return int.from_bytes(frame[:8], "little")


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def _broken(shard: Shard, reason: str) -> UserError:
    return UserError(
        f"{shard.path}: not a whole shard ({reason}); restore it, or prepare the data set again"
    )
