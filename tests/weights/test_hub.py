"""`hf://ORG/NAME[@REVISION]` from a server on this machine that answers as the Hub does."""

import json
import logging
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.hub_server import Hub, read_folder
from tests.small_models import SMALL, assert_same, random_params, refusal
from vit_jax.weights.catalogue import hub as hub_names
from vit_jax.weights.catalogue.names import is_pin_of, pinned, resolve
from vit_jax.weights.files import open_weights, write_weights

NAME = "hf://org/tiny"
PARAMS = random_params(SMALL)


def folder(tmp_path: Path, layout: str, *, in_parts: bool = False) -> dict[str, bytes]:
    """A repository of a library, with what nobody asked for beside it."""
    root = tmp_path / f"{layout}{in_parts}"
    path = root / "model.safetensors"
    write_weights(path, PARAMS, SMALL, layout=layout, card="a card")
    path.with_suffix(".json").unlink()  # Libraries write none.
    if in_parts:
        arrays = load_file(path)
        parts = {f"model-0000{i + 1}-of-00002.safetensors": i for i in range(2)}
        places = {name: sorted(parts)[i % 2] for i, name in enumerate(sorted(arrays))}
        for part in parts:
            own = {name: arrays[name] for name, place in places.items() if place == part}
            save_file(own, root / part)
        path.unlink()
        index = json.dumps({"metadata": {}, "weight_map": places})
        path.with_name("model.safetensors.index.json").write_text(index)
    return read_folder(root) | {"pytorch_model.bin": b"a pickle", ".gitattributes": b""}


@pytest.mark.parametrize("layout", ["timm", "huggingface"])
@pytest.mark.parametrize("in_parts", [False, True])
def test_a_folder_is_read_and_nothing_else_is_fetched(
    layout: str, in_parts: bool, hub: Hub, tmp_path: Path
) -> None:
    files = folder(tmp_path, layout, in_parts=in_parts)
    commit = hub.add("org/tiny", files)
    opened = open_weights(resolve(NAME))
    assert opened.layout == layout and opened.path.parent.name == commit
    assert_same(opened.params, PARAMS)
    wanted = {name for name in files if name.endswith((".safetensors", ".json"))}
    assert sorted(hub.downloaded()) == sorted(wanted) and "config.json" in wanted
    assert hub.downloaded()[-1].startswith("model.safetensors")  # So what is cached is complete.


def test_weights_of_this_package_and_their_description(hub: Hub, tmp_path: Path) -> None:
    write_weights(tmp_path / "run/weights.npz", PARAMS, SMALL, class_names=tuple("abcde"))
    hub.add("org/tiny", read_folder(tmp_path / "run") | {"config.json": b"{}"})
    assert open_weights(resolve(NAME)).class_names == tuple("abcde")
    assert hub.downloaded() == ["weights.json", "weights.npz"]


def test_a_commit_stays_and_needs_no_network(hub: Hub, tmp_path: Path) -> None:
    first = hub.add("org/tiny", folder(tmp_path, "timm"))
    assert pinned(NAME) == f"{NAME}@{first}"
    second = hub.add("org/tiny", folder(tmp_path, "huggingface"))
    hub.asked.clear()
    assert resolve(f"{NAME}@{first}").name == first
    assert not hub.asked
    assert pinned(NAME) == f"{NAME}@{second}" == pinned(f"{NAME}@main")
    assert open_weights(resolve(f"{NAME}@{first}")).layout == "timm"


def test_what_another_program_left_is_completed(hub: Hub, tmp_path: Path) -> None:
    """It shares the cache, and had no use for the preprocessing or for a part."""
    from huggingface_hub import hf_hub_download

    for number, left in enumerate(("model.safetensors", "model.safetensors.index.json")):
        name, files = f"org/tiny{number}", folder(tmp_path, "huggingface", in_parts=bool(number))
        commit = hub.add(name, files)
        for file in ("config.json", left):
            hf_hub_download(name, file, revision=commit)
        found = resolve(f"hf://{name}@{commit}")
        wanted = {file for file in files if file.endswith((".safetensors", ".json"))}
        assert wanted == {file.name for file in found.iterdir()}
        assert_same(open_weights(found).params, PARAMS)
        hub.asked.clear()
        assert resolve(f"hf://{name}@{commit}") == found and not hub.asked


def test_branches_tags_and_commits(hub: Hub, tmp_path: Path) -> None:
    files = folder(tmp_path, "timm")
    old = hub.add("org/tiny", files, "v1", "refs/pr/1")
    hub.add("org/tiny", files | {"config.json": b"{}"})
    for revision in ("v1", "refs/pr/1", old):
        assert pinned(f"{NAME}@{revision}") == f"{NAME}@{old}"


def test_what_a_record_holds_is_told_apart() -> None:
    commit = "a" * 40
    assert is_pin_of(f"{NAME}@{commit}", NAME) and is_pin_of(f"{NAME}@{commit}", f"{NAME}@v1")
    assert not is_pin_of(f"{NAME}@v1", NAME) and not is_pin_of(None, NAME)
    assert not is_pin_of(f"hf://org/tiny2@{commit}", NAME)
    assert not is_pin_of(f"{NAME}@{commit}", f"{NAME}@{'b' * 40}")
    assert not is_pin_of("imagenet21k/ViT-B_16", "imagenet21k/ViT-B_16")


def test_a_line_says_what_is_downloaded(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vit_jax")
    commit = hub.add("org/tiny", folder(tmp_path, "timm"))
    for _ in range(2):
        resolve(NAME)
    (line,) = [r.getMessage() for r in caplog.records if r.name == hub_names.__name__]
    assert line.startswith(f"downloading {NAME}@{commit} (") and "MiB" in line
    assert "model.safetensors" in line and len(hub.downloaded()) == 2


def test_without_a_network_the_cache_serves(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import constants

    commit = hub.add("org/tiny", folder(tmp_path, "timm"), "main", "v1")
    resolve(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert resolve(NAME).name == commit == resolve(f"{NAME}@{commit}").name
    assert not hub.asked and f"taking commit {commit}, which is in the cache" in caplog.text
    message = refusal(resolve, f"{NAME}@v1")
    assert "(HF_HUB_OFFLINE is set)" in message
    assert "Three ways" in message and "`hf download org/tiny --revision v1`" in message
    assert "with a network" in message and "a file or folder that is here" in message


@pytest.mark.parametrize("name", ["hf://org/other", f"{NAME}@v2"])
def test_a_server_that_is_not_there(name: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://me:pass-word@127.0.0.1:9")
    message = refusal(resolve, name)
    assert "Three ways" in message and "hf download" in message and "pass-word" not in message


def test_what_is_not_there(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/tiny", folder(tmp_path, "timm"))
    message = refusal(resolve, "hf://org/tny")
    assert f"hf://org/tny: no such repository at {hub.address}, or a private one" in message
    message = refusal(resolve, f"{NAME}@v2")
    assert f"{NAME}@v2: the repository has no revision v2" in message


def test_who_may_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("org/tiny", folder(tmp_path, "timm"))
    hub.repositories["org/tiny"].is_gated = True
    hub.tokens = {"hf_good"}
    for token in (None, "hf_other"):
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        message = refusal(resolve, NAME)
        assert f"ask for access at {hub.address}/org/tiny" in message
        assert "hf auth login" in message and "hf_other" not in message
    hub.repositories["org/tiny"].is_gated = False
    assert "or a private one; check the name, or log in" in refusal(resolve, NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert resolve(NAME).is_dir()
    assert hub.asked[-1][2] == "Bearer hf_good" and "hf_" not in caplog.text


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pytorch_model.bin": b"?"}, "pytorch_model.bin is a pickle, which can run code"),
        ({"README.md": b"?"}, "give another repository"),
        ({"b.npz": b"?", "x.bin": b"?"}, "hf download org/tiny b.npz gets a file"),
    ],
)
def test_a_repository_without_weights(files: dict[str, bytes], words: str, hub: Hub) -> None:
    hub.add("org/tiny", files)
    message = refusal(resolve, NAME)
    assert "has no weights.npz or model.safetensors" in message and words in message
    assert not hub.downloaded()


def test_a_file_that_ends_early(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    files = folder(tmp_path, "timm")
    hub.add("org/tiny", files)
    hub.lost = 10
    assert "it cannot be downloaded" in refusal(resolve, NAME)
    hub.lost = 0
    assert_same(open_weights(resolve(NAME)).params, PARAMS)


def test_a_file_that_is_stored_truncated(hub: Hub, tmp_path: Path) -> None:
    files = folder(tmp_path, "timm")
    hub.add("org/tiny", files | {"model.safetensors": files["model.safetensors"][:-10]})
    assert "model.safetensors: " in refusal(open_weights, resolve(NAME))


def test_what_is_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    page = b"<html>log in to this network</html>"
    monkeypatch.setattr("tests.hub_server.json.dumps", lambda _: page.decode())
    hub.add("org/tiny", {})
    assert "does not answer as a Hub" in refusal(resolve, NAME)


@pytest.mark.parametrize(
    "name", ["hf://", "hf://tiny", "hf://org/tiny@", "hf://org/../tiny", f"{NAME}@../../x"]
)
def test_names_of_another_form(name: str) -> None:
    assert "write hf://ORG/NAME" in refusal(resolve, name)


@pytest.mark.parametrize("name", ["org/b--c", "org/b..c", "org/tiny.git", "org/tiny-", "o" * 97])
def test_names_that_the_hub_refuses(name: str) -> None:
    name = name if "/" in name else f"org/{name}"
    assert "the Hub has no repository of such a name" in refusal(resolve, f"hf://{name}")
    assert "of such a name" in refusal(resolve, f"hf://{name}@{'a' * 40}")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'vit_jax[hub]'" in refusal(resolve, NAME)


def test_a_directory_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/tiny", folder(tmp_path, "timm"))
    (tmp_path / "hub_cache").write_text("not a directory")
    message = refusal(resolve, NAME)
    assert "cannot be stored (Not a directory)" in message and "HF_HOME" in message
