"""A command whose process 0 cannot write the list of a checkpoint's files, in the background."""

import errno
import os
import sys

from vit_jax.__main__ import main
from vit_jax.runs import file_list


def write(directory: file_list.PathLike) -> None:
    """Fails as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{directory}/{file_list.NAME}")


if __name__ == "__main__":
    file_list.write = write
    sys.exit(main(sys.argv[1:]))
