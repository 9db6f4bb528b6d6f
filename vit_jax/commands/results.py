"""The file that `predict` writes: image by image, so that a job that was stopped resumes.

Beside `FILE.csv` lies `FILE.csv.json`, which states what wrote it. Rows of another model, or with
other options, are never mixed.
"""

import contextlib
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from vit_jax.atomic import remove_unfinished, write_bytes
from vit_jax.commands.output_files import check_output
from vit_jax.errors import UserError
from vit_jax.locks import try_lock
from vit_jax.plain import cell
from vit_jax.reading import read_text

if TYPE_CHECKING:
    from vit_jax.inference.prediction import Prediction

Names = tuple[str, ...] | None
# What is stated for a reader, and may differ when a job resumes.
_ABOUT = ("weights", "version")
# What is told apart by a hash, in words.
_DIGESTS = {"model": "another model", "class_names": "other class names"}
_HEADING = ["image", "rank", "class", "name", "probability", "error"]


class _Found(NamedTuple):
    """What one line of a file holds.

    Attributes:
      image: as the file has it.
      is_last: whether it is the image's last line.
      is_error: whether the image could not be read.
    """

    image: str
    is_last: bool
    is_error: bool


class _Csv:
    """A row for each class of an image, or one row with the error of an unreadable one."""

    heading = ",".join(_HEADING) + "\n"

    def image(self, path: str) -> str:
        """An image as the file names it."""
        return cell(path)

    def lines(self, prediction: "Prediction", names: Names) -> str:
        """All lines of an image."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        image = cell(prediction.image)
        if prediction.error is not None:
            writer.writerow([image, "", "", "", "", cell(prediction.error)])
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        for rank, (label, share) in enumerate(pairs, 1):
            writer.writerow([image, rank, label, cell(name_of(names, label)), f"{share:.6f}", ""])
        return file.getvalue()

    def read(self, line: str, top_k: int) -> _Found:
        """Reads a line back; raises ValueError if `lines` wrote no such line."""
        ((image, rank, _, _, _, error),) = csv.reader([line], strict=True)
        if not error and not 1 <= int(rank) <= top_k:
            raise ValueError(rank)
        return _Found(image, bool(error) or int(rank) == top_k, bool(error))


class _JsonLines:
    """An object for each image."""

    heading = ""

    def image(self, path: str) -> str:
        """An image as the file names it."""
        return path

    def lines(self, prediction: "Prediction", names: Names) -> str:
        """The line of an image."""
        line: dict[str, object] = {"image": prediction.image}
        if prediction.error is not None:
            line["error"] = prediction.error
        else:
            pairs = zip(prediction.classes, prediction.probabilities, strict=True)
            line["predictions"] = [
                {"class": label, "name": name_of(names, label), "probability": round(share, 6)}
                for label, share in pairs
            ]
        return json.dumps(line, ensure_ascii=False) + "\n"

    def read(self, line: str, top_k: int) -> _Found:
        """Reads a line back; raises ValueError if `lines` wrote no such line."""
        del top_k
        value = json.loads(line)
        if not isinstance(value, dict) or not isinstance(value.get("image"), str):
            raise ValueError("no image")
        return _Found(value["image"], True, "error" in value)


_FORMATS: dict[str, _Csv | _JsonLines] = {".csv": _Csv(), ".jsonl": _JsonLines()}


def name_of(names: Names, label: int) -> str:
    """A class in words, or its number where it has no name."""
    return str(label) if names is None else names[label]


class Results:
    """An output file, open and locked, to which images are added.

    Attributes:
      images: in the file, by how often.
      unreadable: images in the file that could not be read.
    """

    def __init__(self, path: Path, descriptor: int, made_by: Mapping[str, Any], names: Names):
        self.images: Counter[str] = Counter()
        self.unreadable = 0
        self._path, self._descriptor, self._names = path, descriptor, names
        self._format = _FORMATS[path.suffix]
        whole = self._find_images(made_by["top_k"])
        os.ftruncate(descriptor, whole)
        if not whole:
            self._add(self._format.heading)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, made_by: Mapping[str, Any], names: Names) -> Iterator[Self]:
        """Opens a new file, or one that the same model began with the same options.

        Args:
          path: ends in .csv or .jsonl.
          made_by: `top_k`, the model and all options that decide what rows hold, as JSON has them.
          names: of the classes; None writes numbers.

        Raises:
          UserError: the file is another program's, another model's, damaged, or open elsewhere; or
            it cannot be written.
        """
        check_output(path)
        with _failing(path, "choose another file"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            with _failing(path, "choose another file"):
                if not try_lock(descriptor):
                    raise UserError(f"--output={path}: another process is writing it")
                _require_same(path, made_by)
                results = cls(path, descriptor, made_by, names)
            yield results
            with _failing(path, "the same command resumes"):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def missing(self, files: Sequence[str]) -> list[str]:
        """The images that have no rows yet, in order; each as often as it is given."""
        there = self.images.copy()
        missing = []
        for file in files:
            image = self._format.image(file)
            if there[image]:
                there[image] -= 1
            else:
                missing.append(file)
        return missing

    def write(self, prediction: "Prediction") -> None:
        """Adds the rows of an image; a kill no longer loses them when this returns."""
        with _failing(self._path, "what is written stays, and the same command resumes"):
            self._add(self._format.lines(prediction, self._names))
        self.images[self._format.image(prediction.image)] += 1
        self.unreadable += prediction.error is not None

    def _add(self, text: str) -> None:
        # Names of files need not be text; in JSON these escapes are the standard ones.
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _find_images(self, top_k: int) -> int:
        """Counts the images that are there; returns the bytes of those that are whole."""
        end, whole = 0, 0
        with open(self._path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # A kill or a full disk cut it off.
                end += len(line)
                try:
                    text = line.decode()
                    found = (
                        None
                        if end == len(line) and text == self._format.heading
                        else (self._format.read(text, top_k))
                    )
                except (ValueError, RecursionError, csv.Error) as error:
                    raise UserError(
                        f"--output={self._path}: line {number} is damaged; mend it, or remove the "
                        "file to start over"
                    ) from error
                if found is None or found.is_last:
                    whole = end
                if found is not None and found.is_last:
                    self.images[found.image] += 1
                    self.unreadable += found.is_error
        return whole


def _require_same(path: Path, made_by: Mapping[str, Any]) -> None:
    """Reads what began a file, or states it beside a new one."""
    about = path.with_name(f"{path.name}.json")
    remove_unfinished(about)
    if not path.stat().st_size:
        try:
            write_bytes(about, (json.dumps(made_by, indent=2) + "\n").encode())
        except OSError:
            path.unlink()
            raise
        return
    over = f"choose another file, or remove {path.name} and {about.name} to start over"
    try:
        began = json.loads(read_text(about))
        if not isinstance(began, dict):
            raise ValueError("no object")
    except FileNotFoundError:
        raise UserError(f"--output={path}: nothing states what wrote this file; {over}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{about} cannot be read ({error}); {over}") from error
    for key in made_by:
        if key not in _ABOUT and began.get(key) != made_by[key]:
            raise UserError(f"--output={path} was begun with {_other(key, began, made_by)}; {over}")


def _other(key: str, began: Mapping[str, Any], made_by: Mapping[str, Any]) -> str:
    if key in _DIGESTS:
        return f"{_DIGESTS[key]} (--weights={began.get('weights')})"
    return f"{key}={began.get(key)}, and now it is {made_by[key]}"


@contextlib.contextmanager
def _failing(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--output={path}: {error.strerror}; {remedy}") from error
