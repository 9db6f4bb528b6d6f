"""Scalars for TensorBoard, as event files.

tensorboardX makes the events. Its own writer hands them to a thread, which ends for good when the
disk is full; the run would then wait for it for ever. So the file is written here.
"""

import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from vit_jax.errors import StorageError, UserError
from vit_jax.runs.appending import open_growing
from vit_jax.storage.paths import is_bucket


class TensorBoard:
    """Writes TensorBoard events into a directory; on a full disk they wait for room.

    In a bucket, files follow each other in the order of their names, in which TensorBoard reads
    them. The newest is written again while it is short; its beginning stays as it is.

    Args:
      start: the step after which this start takes steps. TensorBoard then drops what an earlier
        start wrote of later steps.

    Raises:
      UserError: the directory cannot be written.
    """

    def __init__(self, directory: epath.Path, start: int):
        _import_without_torch()
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        version = Event(file_version="brain.Event:2", wall_time=time.time())
        header = _record(version.SerializeToString())
        try:
            if not is_bucket(directory):
                directory.mkdir(parents=True, exist_ok=True)
            self._file = open_growing(directory / name, header=header)
        except StorageError:
            raise
        except OSError as error:
            raise UserError(
                f"cannot write events to {directory} ({error.strerror}); free space or change its "
                "permissions, or leave 'tensorboard' out of config.callbacks"
            ) from error
        self._file.add(header)
        self._add(Event(step=start + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one event for each value."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(Event(step=step, summary=scalar(name, value)))

    def close(self) -> None:
        """Flushes and closes the events file."""
        self._file.close()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._file.add(_record(event.SerializeToString()))


def _record(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, data, their checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return b"".join((length, next(sums), data, next(sums)))


def _import_without_torch() -> None:
    """Imports tensorboardX, which imports torch wherever it is installed, without it.

    That takes seconds and hundreds of megabytes, and two OpenMP libraries in one process.
    """
    hides = "torch" not in sys.modules
    if hides:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tensorboardX  # noqa: F401
    finally:
        if hides:
            del sys.modules["torch"]
