"""Names of released files. The index of AugReg is a made-up one; nothing is downloaded."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from vit_jax.errors import UserError
from vit_jax.weights.catalogue import names as catalogue
from vit_jax.weights.catalogue.names import find, releases, resolve

STORAGE = "https://storage.googleapis.com"
BEST_B_16 = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIT_JAX_STORAGE", "http://127.0.0.1:9")  # Nothing answers there.
    monkeypatch.setattr("vit_jax.weights.catalogue.download.RETRY_DELAYS", ())
    return tmp_path / "cache"


@pytest.fixture
def index(cache: Path) -> list[dict[str, object]]:
    """Rows of index.csv; B_16's best upstream is not the one with the best fine-tuning."""
    other = BEST_B_16.replace("medium1", "light1")
    thirty = "B_16-i21k_30-30ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0"
    nan = BEST_B_16.replace("medium1", "none")
    rows = [
        _row(other, "0.46", "imagenet2012", "384", "0.91", "0.03"),
        _row(BEST_B_16, "0.47", "imagenet2012", "384", "0.80", "0.01"),
        _row(BEST_B_16, "0.47", "imagenet2012", "384", "0.85", "0.03"),
        _row(BEST_B_16, "0.47", "imagenet2012", "224", "0.95", "0.03"),
        _row(BEST_B_16, "0.47", "cifar100", "384", "0.99", "0.003"),
        _row(thirty, "0.99", "imagenet2012", "384", "0.70", "0.03") | {"ds": "i21k_30"},
        _row(nan, "nan", "imagenet2012", "384", "", "0.03"),
        _row(BEST_B_16.replace("B_16", "R26_B_32"), "0.98", "imagenet2012", "384", "0.5", "0.03"),
    ]
    _write_index(cache, rows)
    return rows


def _row(
    stem: str, final_val: str, adapt_ds: str, resolution: str, adapt_final_val: str, lr: str
) -> dict[str, object]:
    steps = "10" if adapt_ds == "cifar100" else "20"
    adapted = f"{stem}--{adapt_ds}-steps_{steps}k-lr_{lr}-res_{resolution}"
    return {
        "name": "B/16",
        "ds": "i21k",
        "final_val": final_val,
        "adapt_ds": adapt_ds,
        "adapt_resolution": resolution,
        "adapt_final_val": adapt_final_val,
        "filename": stem,
        "adapt_filename": adapted,
    }


def _write_index(cache: Path, rows: list[dict[str, object]]) -> None:
    path = cache / "vit_models/augreg/index.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _error(name: str, look_up: Callable[[str], object] = find) -> str:
    with pytest.raises(UserError) as error:
        look_up(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_original_releases_are_there_with_the_paper_s_table_5() -> None:
    listed = {r.name: r for r in releases() if r.collection == "vit"}
    stems = {name.removeprefix("imagenet21k/") for name in listed if "21k/" in name}
    assert stems == {
        *("R26+ViT-B_32", "R50+ViT-B_16", "R50+ViT-L_32"),
        *("ViT-B_8", "ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32", "ViT-H_14"),
    }
    prefix = "imagenet21k+imagenet2012/"
    fine_tuned = {name.removeprefix(prefix): r for name, r in listed.items() if "21k+" in name}
    published = {name: release.accuracy for name, release in fine_tuned.items()}
    assert published == {
        "ViT-B_16": 83.97,
        "ViT-B_32": 81.28,
        "ViT-L_16": 85.15,
        "ViT-L_32": 80.99,
        **dict.fromkeys(("ViT-B_8", "R50+ViT-B_16", "ViT-B_16-224", "ViT-L_16-224")),
    }
    assert {r.resolution for r in fine_tuned.values() if "-224" in r.name} == {224}
    assert {r.resolution for r in fine_tuned.values() if "-224" not in r.name} == {384}
    assert listed["imagenet21k/ViT-H_14"].accuracy == 85.13
    for release in listed.values():
        assert release.num_classes == (1000 if "2012" in release.name else 21843)
        assert release.has_pre_logits == ("2012" not in release.name)


def test_names_are_distinct_and_each_figure_has_a_source() -> None:
    listed = releases()
    assert len({r.name for r in listed}) == len({r.url for r in listed}) == len(listed)
    assert {r.collection for r in listed} == {"vit", "augreg", "sam", "gsam", "mixer", "bit"}
    for release in listed:
        assert (release.accuracy is None) == (release.accuracy_source is None)
        assert release.url.endswith(f"/{release.name.partition('/')[2]}.npz")
        assert find(release.name) == release


@pytest.mark.parametrize(
    ("text", "count"),
    [("imagenet21k/vit-b_16", 1), ("IMAGENET21K_VIT/B-16", 1), ("gsam", 4), ("no such", 0)],
)
def test_a_filter_is_part_of_a_name(text: str, count: int) -> None:
    assert len(releases(text)) == count


def test_a_filter_may_be_part_of_the_model() -> None:
    assert f"augreg/{BEST_B_16}" in {r.name for r in releases("ViT-B/16")}


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("imagenet21k/ViT-B_16", "vit_models/imagenet21k/ViT-B_16"),
        ("imagenet21k/vit-b/16", "vit_models/imagenet21k/ViT-B_16"),
        ("gs://vit_models/sam/ViT-B_16.npz", "vit_models/sam/ViT-B_16"),
        (f"{STORAGE}/mixer_models/sam/Mixer-B_16.npz", "mixer_models/sam/Mixer-B_16"),
        ("ViT-H_14", "vit_models/imagenet21k/ViT-H_14"),
        ("ViT-B_16-224", "vit_models/imagenet21k+imagenet2012/ViT-B_16-224"),
        ("BiT-M-R50x1-ILSVRC2012", "bit_models/BiT-M-R50x1-ILSVRC2012"),
    ],
)
def test_spellings_of_a_name(name: str, url: str) -> None:
    assert find(name).url == f"{STORAGE}/{url}.npz"


def test_a_stem_that_several_prefixes_have() -> None:
    message = _error("ViT-B_16")
    for prefix in ("imagenet21k", "imagenet21k+imagenet2012", "sam", "gsam"):
        assert f"{prefix}/ViT-B_16" in message


@pytest.mark.parametrize("prefix", ["", "augreg/", "gs://vit_models/augreg/"])
@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_augreg_names_fit_a_grammar(prefix: str, suffix: str) -> None:
    stem = (
        "R26_S_32-i21k_30-30ep-lr_0.001-aug_light0-wd_0.03-do_0.1-sd_0.1"
        "--oxford_iiit_pet-steps_0k-lr_0.003-res_224"
    )
    release = find(f"{prefix}{stem}{suffix}")
    assert release.name == f"augreg/{stem}"
    assert release.url == f"{STORAGE}/vit_models/augreg/{stem}.npz"
    assert (release.collection, release.model) == ("augreg", "R26+ViT-S/32")
    assert release.dataset == "imagenet21k+oxford_iiit_pet"
    assert (release.resolution, release.num_classes) == (224, 37)
    assert release.accuracy is None


@pytest.mark.parametrize(
    ("stem", "model", "dataset", "classes"),
    [
        ("Ti_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.0-sd_0.0", "ViT-Ti/16", "2012", 1000),
        ("R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0", "R+ViT-Ti/16", "21k", 21843),
    ],
)
def test_augreg_names_without_fine_tuning(
    stem: str, model: str, dataset: str, classes: int
) -> None:
    release = find(stem)
    assert (release.model, release.dataset, release.num_classes, release.resolution) == (
        *(model, f"imagenet{dataset}"),
        *(classes, 224),
    )


def test_the_files_that_augreg_recommends_have_the_figures_of_its_table_3() -> None:
    fine_tuned = [r for r in releases("augreg") if "res_384" in r.name]
    assert {r.model: r.accuracy for r in fine_tuned} == {
        "ViT-L/16": 85.59,
        "ViT-B/16": 85.49,
        "ViT-S/16": 83.73,
        "R50+ViT-L/32": 85.99,
        "R26+ViT-S/32": 83.85,
        "ViT-Ti/16": 78.22,
        "ViT-B/32": 83.59,
        "ViT-S/32": 79.58,
        "R+ViT-Ti/16": 75.40,
    }
    for release in fine_tuned:
        upstream = find(release.name.partition("--")[0])
        assert upstream in releases("augreg")
        assert upstream.accuracy == release.accuracy
        assert upstream.accuracy_source and "fine-tuned" in upstream.accuracy_source


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("imagenet21k/ViT-B_61", "imagenet21k/ViT-B_16"),
        ("imagenet21/ViT-H_14", "imagenet21k/ViT-H_14"),
        ("Vit-H14", "ViT-H_14"),
        ("augreg/B16", "augreg/B_16"),
        ("augreg/b_16", "augreg/B_16"),
        (BEST_B_16.replace("medium1", "medium3"), BEST_B_16),
    ],
)
def test_near_misses(name: str, meant: str) -> None:
    message = _error(name)
    assert repr(name) in message
    assert f"did you mean '{meant}'?" in message


@pytest.mark.usefixtures("index")
def test_the_best_of_augreg_s_files_for_a_model() -> None:
    assert find("augreg/B_16").name == f"augreg/{BEST_B_16}"
    best = find("augreg/B_16--imagenet2012-res_384")
    assert best.name == f"augreg/{BEST_B_16}--imagenet2012-steps_20k-lr_0.03-res_384"
    assert best.accuracy == 85.49
    assert find("augreg/B_16--cifar100-res_384").num_classes == 100


@pytest.mark.usefixtures("index")
def test_augreg_s_index_has_no_such_file() -> None:
    message = _error("augreg/B_16--cifar100-res_224")
    assert "cifar100-res_384, imagenet2012-res_224, imagenet2012-res_384" in message
    assert "index.csv has no such file" in _error("augreg/L_16")


def test_a_damaged_index(index: list[dict[str, object]], cache: Path) -> None:
    _write_index(cache, [{k: v for k, v in row.items() if k != "final_val"} for row in index])
    assert "lacks final_val; remove it" in _error("augreg/B_16")
    _write_index(cache, [row | {"filename": "B_16-../../../etc/passwd"} for row in index])
    assert "is no file of AugReg" in _error("augreg/B_16")
    # What is no text at all is downloaded anew.
    for content in (b"", b"\xff\xfe\x00"):
        (cache / "vit_models/augreg/index.csv").write_bytes(content)
        assert "index.csv could not be downloaded" in _error("augreg/B_16")


def test_the_index_cannot_be_downloaded() -> None:
    assert "check the network" in _error("augreg/B_16")


# What a user may give as weights.


def test_a_path_that_exists_comes_first(tmp_path: Path) -> None:
    (tmp_path / "ViT-H_14").mkdir()
    (tmp_path / "weights.npz").touch()
    assert resolve("ViT-H_14") == Path("ViT-H_14")
    assert resolve(tmp_path / "weights.npz") == tmp_path / "weights.npz"


def test_home_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights.npz").touch()
    assert resolve("~/weights.npz") == tmp_path / "weights.npz"


@pytest.mark.parametrize(
    "text", ["./ViT-H_14", "../x.npz", "/x/ViT-H_14", "~/x", "runs/x.npz", "runs/x.safetensors"]
)
def test_what_looks_like_a_path_is_no_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert f"{text}: no such file or directory" in _error(text, resolve)


def test_a_name_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str) -> Path:
        asked.append(url)
        return Path("there.npz")

    monkeypatch.setattr(catalogue, "fetch", fetch)
    assert resolve("ViT-H_14") == Path("there.npz")
    assert resolve(f"{BEST_B_16}.npz") == Path("there.npz")
    assert asked == [
        f"{STORAGE}/vit_models/imagenet21k/ViT-H_14.npz",
        f"{STORAGE}/vit_models/augreg/{BEST_B_16}.npz",
    ]


@pytest.mark.parametrize("text", ["nowhere.npz", "runs/cifar", "ViT-H_41", "x" * 5000])
def test_neither_path_nor_name(text: str) -> None:
    message = _error(text, resolve)
    assert repr(text) in message
    assert "or give a file, a run's directory, or hf://ORG/NAME" in message
    assert "known:" not in message
