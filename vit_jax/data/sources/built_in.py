"""Data sets that the package makes itself: TFDS data sets that are prepared on first use."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.errors import UserError


class BuiltIn(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set that needs no download and no TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS would look for checksums of downloads next to the code. There are none, and the search
    # imports a package that TFDS does not install (importlib_resources).
    code_path = None


def prepare_built_in(builder: BuiltIn) -> None:
    """Writes the data set as ArrayRecord, unless that was done before. Prints nothing.

    Several processes may do it at once: TFDS writes next to the final directory and renames, and
    the first one wins.

    Raises:
      UserError: the directory cannot be written.
    """
    if builder.is_prepared():
        return
    silence = io.StringIO()
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            builder.download_and_prepare(file_format=tfds.core.FileFormat.ARRAY_RECORD)
    except OSError as error:
        if builder.is_prepared():  # by another process, since the check above
            return
        raise UserError(
            f"cannot write data set {builder.name!r} to {builder.data_dir}: {error}; "
            "choose another data_dir"
        ) from error


def png(pixels: np.ndarray) -> bytes:
    """Encodes an image as PNG with Pillow; given an array, TFDS would need TensorFlow for it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
