"""`predict --embed`: features of images as a NumPy or a Parquet file."""

import argparse
import contextlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from etils import epath

from vit_jax.atomic import remove_unfinished, write_all
from vit_jax.commands.output import say
from vit_jax.commands.output_files import check_output
from vit_jax.config import apply_overrides
from vit_jax.errors import StorageError, UserError
from vit_jax.schema import build, to_dict
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket
from vit_jax.version import __version__

if TYPE_CHECKING:
    from vit_jax.inference.embedding import Embedded
    from vit_jax.inference.features import FeatureConfig
    from vit_jax.models.model import Model

_NOT_WITH_EMBED = ("output", "top_k", "class_names", "attention_maps")
# Parquet is read in groups of rows; this is what one of them holds at least, but for the last.
_GROUP_BYTES = 2**26


def write_features(
    arguments: argparse.Namespace, options: Sequence[str], files: Sequence[str]
) -> int:
    """Writes features of images; returns how many could not be read.

    Args:
      options: changes of `FeatureConfig`, as `--embed.KEY=VALUE`.
    """
    from vit_jax.inference.embedding import embed
    from vit_jax.weights.load import load_model

    output: epath.Path = arguments.embed
    write = _writer(output)
    for flag in _NOT_WITH_EMBED:
        if (value := getattr(arguments, flag)) is not None:
            raise UserError(f"--{flag}={value} would be ignored: --embed writes features alone")
    check_output(output, "embed")
    config = _config(options)
    model = load_model(weights=arguments.weights, image_size=arguments.image_size)
    batches = embed(
        model, files, config, batch_size=arguments.batch_size, workers=arguments.workers
    )
    made_by = _made_by(arguments, model, config)
    errors: dict[str, str] = {}
    if objects.exists(output):
        say(f"{output} exists, and is computed anew")
    try:
        shown = _readable(_with_progress(batches, len(files)), errors)
        with _local(output) as local:
            remove_unfinished(local)
            write_all({local: lambda file: write(file, shown, made_by, local.parent)})
    except StorageError:
        raise
    except OSError as error:
        raise UserError(f"--embed={output}: {error.strerror}; choose another file") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{output} is not written, and the same command starts anew"
        ) from None
    for image, reason in errors.items():
        say(f"left out {image}: {reason}")
    return len(errors)


@contextlib.contextmanager
def _local(output: epath.Path) -> Iterator[Path]:
    """A path on a disk for a file; one for a bucket is sent there when it is written."""
    if not is_bucket(output):
        yield Path(output)
        return
    with tempfile.TemporaryDirectory(prefix="vit_jax_") as directory:
        local = Path(directory, output.name)
        yield local
        objects.send(local, output)


def _config(options: Sequence[str]) -> "FeatureConfig":
    from vit_jax.inference.features import FeatureConfig

    changes = [option.replace("--embed.", "--config.embed.", 1) for option in options]
    return build(FeatureConfig, apply_overrides({"embed": {}}, changes)["embed"], "embed")


def _made_by(
    arguments: argparse.Namespace, model: "Model", config: "FeatureConfig"
) -> dict[str, Any]:
    height, width = model.config.input_size
    return {
        "weights": arguments.weights,
        "model": model.config.name,
        "image_size": f"{height}x{width}",
        **to_dict(config),
        "version": __version__,
    }


def _readable(batches: "Iterable[Embedded]", errors: dict[str, str]) -> "Iterator[Embedded]":
    """Those that hold an image; notes why others cannot be read."""
    is_empty = True
    for batch in batches:
        errors |= batch.errors
        if batch.images:
            is_empty = False
            yield batch
    if is_empty:
        image, error = next(iter(errors.items()))
        raise UserError(f"none of the images can be read; {image}: {error}")


# Writes batches into an open file; the directory has room for what is not yet complete.
_Write = Callable[[IO[bytes], "Iterator[Embedded]", dict[str, Any], Path], None]


def _writer(output: epath.Path) -> _Write:
    if output.suffix == ".npz":
        return _write_npz
    if output.suffix != ".parquet":
        raise UserError(f"--embed={output}: name a .npz or a .parquet file")
    try:
        import pyarrow.parquet  # noqa: F401 (asked for before anything is computed)
    except ImportError:
        raise UserError(
            f"--embed={output}: Parquet needs pyarrow; install it with "
            "pip install 'vit_jax[parquet]', or write a .npz file"
        ) from None
    return _write_parquet


def _write_npz(
    file: IO[bytes], batches: "Iterator[Embedded]", made_by: dict[str, Any], directory: Path
) -> None:
    """`images`, `features` and `made_by`, as `numpy.load` gives them; nothing is pickled."""
    images: list[str] = []
    shape: tuple[int, ...] = ()
    with (
        tempfile.TemporaryFile(dir=directory) as rows,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for batch in batches:
            images += batch.images
            shape = batch.features.shape[1:]
            rows.write(np.ascontiguousarray(batch.features, "<f4").data)
        rows.seek(0)
        with archive.open("features.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(images), *shape)}
            np.lib.format.write_array_header_2_0(member, header)
            shutil.copyfileobj(rows, member, 2**20)
        texts = {"images": np.array(images), "made_by": np.array(json.dumps(made_by))}
        for name, array in texts.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())


def _write_parquet(
    file: IO[bytes], batches: "Iterator[Embedded]", made_by: dict[str, Any], directory: Path
) -> None:
    """Columns `image` and `features`: lists of fixed length, or tensors where patches are kept."""
    del directory
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    for images, features in _groups(batches):
        flat = pa.array(features.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, features[0].size)
        if features.ndim > 2:
            kind = pa.fixed_shape_tensor(pa.float32(), features.shape[1:])
            column = pa.ExtensionArray.from_storage(kind, column)
        # Names of files need not be text.
        names = [image.encode("utf-8", "backslashreplace").decode() for image in images]
        table = pa.table({"image": names, "features": column})
        table = table.replace_schema_metadata({"made_by": json.dumps(made_by)})
        if writer is None:
            writer = pq.ParquetWriter(file, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _groups(batches: "Iterator[Embedded]") -> Iterator[tuple[list[str], np.ndarray]]:
    images: list[str] = []
    waiting: list[np.ndarray] = []
    for batch in batches:
        images += batch.images
        waiting.append(batch.features)
        if sum(each.nbytes for each in waiting) >= _GROUP_BYTES:
            yield images, np.concatenate(waiting)
            images, waiting = [], []
    if images:
        yield images, np.concatenate(waiting)


def _with_progress(batches: "Iterator[Embedded]", total: int) -> "Iterator[Embedded]":
    from tqdm import tqdm

    with tqdm(total=total, unit="img", disable=None) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.images) + len(batch.errors))
