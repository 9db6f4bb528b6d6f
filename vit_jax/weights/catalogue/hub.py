"""Weights of the Hugging Face Hub by `hf://ORG/NAME[@REVISION]`.

`huggingface_hub` downloads them into its own cache and finds the user's token, as in every program
that uses it: HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean there. Here it
is decided which files are asked for, and of which commit.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vit_jax.errors import UserError
from vit_jax.plain import plain
from vit_jax.weights.catalogue.receiving import without_secret
from vit_jax.weights.files import CARD_NAME, FOLDER_FILES, descriptions_of, weights_named
from vit_jax.weights.kinds import read_json_object
from vit_jax.weights.shards import is_part

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_log = logging.getLogger(__name__)

SCHEME = "hf://"
_NAME = re.compile(
    r"hf://(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w.-]*(?:/\w[\w.-]*)*))?",
    re.ASCII,
)
# What the Hub allows in no repository's name, nor more letters than these.
_NO_REPOSITORY = re.compile(r"--|\.\.|[-.](/|$)|\.git$")
_LONGEST = 96
_COMMIT = re.compile("[0-9a-f]{40}")
_SECONDS = 30.0
# A branch may move while its files are asked for.
_ATTEMPTS = 3
_NO_ROOM = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    errno.ENOTDIR,
)


class HubName(NamedTuple):
    """What `hf://ORG/NAME[@REVISION]` says.

    Attributes:
      repository: ORG/NAME.
      revision: a commit, a tag or a branch; None is the repository's main branch.
    """

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Reads a name.

        Raises:
          UserError: it is not of this form.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise UserError(
                f"{text}: write hf://ORG/NAME, or hf://ORG/NAME@REVISION with a commit, tag or "
                "branch"
            )
        repository = match["repository"]
        if _NO_REPOSITORY.search(repository) or len(repository) > _LONGEST:
            raise UserError(f"{text}: the Hub has no repository of such a name; check it")
        return cls(repository, match["revision"])

    @property
    def is_pinned(self) -> bool:
        """Whether it always means the same files."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{SCHEME}{self.repository}{revision}"


def fetch_repository(name: HubName) -> Path:
    """The folder of a repository's weights and configs at a revision, whose name is the commit.

    Only a file that `open_weights` reads and what describes it are downloaded. A commit that is in
    the cache needs no network. A branch or tag that is in the cache is used if the Hub cannot be
    reached.

    Raises:
      UserError: `huggingface_hub` is missing; the repository or the revision does not exist, or may
        not be read; it holds no weights that can be read; or the download fails.
    """
    try:
        import huggingface_hub  # noqa: F401 (asked for before anything else)
    except ImportError:
        raise UserError(
            f"{name} needs the package huggingface_hub: pip install 'vit_jax[hub]'"
        ) from None
    if name.is_pinned and (folder := cached_repository(name)) is not None:
        return folder
    try:
        for _ in range(_ATTEMPTS):
            if (folder := _download(name)) is not None:
                return folder
    except _failures() as error:
        folder = None if _status(error) in (401, 403, 404) else cached_repository(name)
        if folder is None:
            raise _explained(name, error) from error
        _log.warning(
            "%s: the Hub cannot be asked (%s); taking commit %s, which is in the cache",
            *(name, _reason(error), folder.name),
        )
        return folder
    raise UserError(f"{name} changes while it is downloaded; use the same command again")


def _failures() -> tuple[type[Exception], ...]:
    """What the library raises: errors of its HTTP client, of the Hub's own protocol, of disks.

    The client is another package in each of its versions.
    """
    from huggingface_hub import errors

    names = ("HTTPError", "XetDownloadError")
    return (OSError, *(getattr(errors, name) for name in names if hasattr(errors, name)))


def cached_repository(name: HubName) -> Path | None:
    """The folder in the cache, if all that describes its weights is there or known to be nowhere.

    Other programs share the cache and may leave out a file that is needed here.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for weights in FOLDER_FILES:
        found = try_to_load_from_cache(name.repository, weights, revision=name.revision)
        if isinstance(found, str):
            path = Path(found)
            needed = [*_describing(weights), *(_parts(path) if path.suffix == ".json" else ())]
            states = (
                try_to_load_from_cache(name.repository, file, revision=path.parent.name)
                for file in needed
            )
            return None if None in states else path.parent
    return None


def _describing(weights: str) -> list[str]:
    """Names of the files that may describe weights to programs."""
    paths = descriptions_of(weights_named(Path(weights)))
    return [path.name for path in paths if path.name != CARD_NAME]


def _parts(index: Path) -> list[str]:
    try:
        places = read_json_object(index).get("weight_map")
    except UserError:
        return []  # Who opens it says what is wrong.
    named = set(map(str, places.values())) if isinstance(places, dict) else set()
    return sorted(file for file in named if is_part(file, index.name))


def _download(name: HubName) -> Path | None:
    """Downloads what is not in the cache; None if the revision has moved meanwhile."""
    from huggingface_hub import errors, hf_hub_download

    info = _ask(name)
    commit = HubName(name.repository, info.sha)
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    files = _needed(name, sizes)
    if cached_repository(commit) is None:
        total = sum(sizes[file] for file in files)
        _log.info("downloading %s (%.1f MiB, %s)", commit, total / 2**20, ", ".join(files))
        for file in files[:-1]:
            hf_hub_download(name.repository, file, revision=info.sha)
        for file in set(_describing(files[-1])) - sizes.keys():
            # The cache then knows that there is none.
            with contextlib.suppress(errors.EntryNotFoundError):
                hf_hub_download(name.repository, file, revision=info.sha)
    # Under the name that was asked for, so that the cache knows what it means without a network.
    last = hf_hub_download(name.repository, files[-1], revision=name.revision)
    folder = Path(last).parent
    return folder if folder.name == info.sha else None


def _ask(name: HubName) -> ModelInfo:
    """What the Hub says of a repository at a revision: its commit and its files."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(
            name.repository, revision=name.revision, files_metadata=True, timeout=_SECONDS
        )
    except (ValueError, TypeError, KeyError) as error:  # Such as a proxy's page.
        raise UserError(
            f"{name}: {_endpoint()} does not answer as a Hub ({_reason(error)}); check HF_ENDPOINT"
        ) from error
    if _COMMIT.fullmatch(info.sha or "") is None:
        raise UserError(f"{name}: {_endpoint()} names no commit; check HF_ENDPOINT")
    return info


def _needed(name: HubName, listed: Collection[str]) -> list[str]:
    """The files to download, the weights or their index last.

    Raises:
      UserError: there are none that could be read.
    """
    for weights in FOLDER_FILES:
        if weights in listed:
            beside = [file for file in _describing(weights) if file in listed]
            parts = sorted(file for file in listed if is_part(file, weights))
            return [*beside, *parts, weights]
    pickles = [file for file in listed if file.endswith((".bin", ".pth", ".pt", ".ckpt", ".pkl"))]
    others = [file for file in listed if file.endswith((".npz", ".safetensors"))]
    if others:
        why = (
            f"it has {plain(min(others))}: hf download {name.repository} {plain(min(others))} "
            "gets a file whose path you can give"
        )
    elif pickles:
        why = (
            f"its {plain(min(pickles))} is a pickle, which can run code and is never loaded; the "
            "library that wrote it can save it as .safetensors"
        )
    else:
        why = "give another repository"
    raise UserError(f"{name} has no {' or '.join(FOLDER_FILES[:2])}; {why}")


def _explained(name: HubName, error: Exception) -> UserError:
    """A failure in one line; what the library says has several, with addresses of its own."""
    from huggingface_hub import errors

    status, page = _status(error), f"{_endpoint()}/{name.repository}"
    if isinstance(error, errors.GatedRepoError):
        text = f"its authors ask who uses it; ask for access at {page}, then {_log_in()}"
    elif isinstance(error, errors.RevisionNotFoundError):
        text = f"the repository has no revision {name.revision}; {page} lists its branches and tags"
    elif isinstance(error, errors.RepositoryNotFoundError):
        text = (
            f"no such repository at {_endpoint()}, or a private one; check the name, or {_log_in()}"
        )
    elif status in (401, 403):
        text = (
            f"{_endpoint()} refuses access ({status}); {_log_in()}, with a token that may read it"
        )
    elif isinstance(error, OSError) and error.errno in _NO_ROOM:
        text = (
            f"it cannot be stored ({error.strerror}); make room, or set HF_HOME to a directory "
            "that can be written"
        )
    else:
        at = "" if name.revision is None else f" --revision {name.revision}"
        text = (
            f"it cannot be downloaded ({_reason(error)}), and the cache has no copy. Three ways: "
            "use the same command again with a network; or run `hf download "
            f"{name.repository}{at}` where there is one, and give the folder that it prints; or "
            "give a file or folder that is here"
        )
    return UserError(f"{name}: {text}")


def _status(error: Exception) -> int | None:
    response: Any = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _log_in() -> str:
    return "log in with `hf auth login` or HF_TOKEN"


def _endpoint() -> str:
    from huggingface_hub import constants

    return without_secret(constants.ENDPOINT, constants.ENDPOINT)


def _reason(error: Exception) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    words = " ".join(str(error).split()) or type(error).__name__
    return plain(without_secret(words, constants.ENDPOINT))[:200]
