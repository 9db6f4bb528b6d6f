"""Images a second that a device trains: stated, or read from the file of a benchmark."""

import json
import math
from typing import Any

from vit_jax.errors import UserError
from vit_jax.experiments.benchmark.curves import Values, by_batch, largest, peaks
from vit_jax.storage.paths import given_path


def read_values(file: str, flag: str, kind: str) -> Values:
    """The values that a benchmark of training or inference has written.

    Args:
      flag: that names the file, for messages.
      kind: `train` or `inference`.

    Raises:
      UserError: the file cannot be read, or is another one.
    """
    path = given_path(file)
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        found = str(values["benchmark"])
        if found == kind:
            # What others need is there.
            by_batch(values), peaks(values), largest(values), values["device"]
    except OSError as error:
        raise UserError(f"--{flag}={file}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--{flag}={file} is no file that `benchmark {kind} --output=FILE.json` wrote"
        ) from error
    if found != kind:
        raise UserError(
            f"--{flag}={file} holds a benchmark of {found}; write one with "
            f"`benchmark {kind} --output=FILE.json`"
        )
    return values


def read_rates(text: str) -> dict[str, float]:
    """Images a second of a device, by what says so: a number, or the curves of a file.

    Raises:
      UserError: the text is neither.
    """
    if not text.endswith(".json"):
        try:
            rate = float(text)
        except ValueError:
            rate = 0.0
        if not 0 < rate < math.inf:
            raise UserError(
                f"--rate={text} must be images a second, such as 1200, or a .json file of "
                "`benchmark train`"
            )
        return {"stated": rate}
    values = read_values(text, "rate", "train")
    rates = {name: max(point.y for point in points) for name, points in by_batch(values).items()}
    if not rates:
        raise UserError(f"--rate={text}: nothing of it fits its devices, so it holds no rate")
    return rates
