"""Commands that read a run, weights and images from a bucket, and write into it."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests import bucket_server
from tests.bucket_api import Bucket
from tests.small_models import SMALL, TINY_FLAGS, assert_same, random_params
from vit_jax.__main__ import main
from vit_jax.data.sources import bucket_folder
from vit_jax.models.functional import model_params
from vit_jax.storage import retrying
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import open_weights, write_weights

RUN = "gs://bkt/runs/photos"
TRAIN = [
    *("train", "--config=configs/quickstart.py", *TINY_FLAGS),
    *("--config.data.dataset=gs://bkt/photos", "--config.data.batch_size=4"),
    *("--config.data.train=train", "--config.evals.test.split=test"),
    *("--config.optimizer.warmup_steps=1", "--config.total_steps=2", "--config.log_every=1"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket with photos of two classes, and a run in it that was trained on them."""
    with bucket_server.serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        patch.setenv("VIT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        rng = np.random.default_rng(0)
        for split, count in (("train", 4), ("test", 2)):
            for label in "ab":
                for number in range(count):
                    image = io.BytesIO()
                    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                    Image.fromarray(pixels).save(image, "PNG")
                    name = f"photos/{split}/{label}/{number}.png"
                    server.objects.write("bkt", name, image.getvalue(), "image/png", {})
        assert main([*TRAIN, f"--workdir={RUN}", "--report=off"]) == 0
        yield server


@pytest.fixture(autouse=True)
def cleared(served: Bucket) -> Iterator[None]:
    """A test that closes the bucket closes it for itself alone."""
    yield
    served.faults.plans.clear()
    served.faults.access = "write"


def content(served: Bucket, name: str) -> bytes:
    data: bytes = served.objects.buckets["bkt"][name].data
    return data


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends."""
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    *log, last = error.splitlines()
    assert last.startswith("error: ") and all("trying again" in line for line in log), error
    return last


def test_a_run_is_scored_on_its_own_evaluations(served: Bucket) -> None:
    for number, options in enumerate(([], ["--dataset=gs://bkt/photos", "--split=test"])):
        output = f"out/{number}.json"
        command = ["evaluate", f"--weights={RUN}", *options, f"--output=gs://bkt/{output}"]
        assert main(command) == 0
        (row,) = json.loads(content(served, output))
        facts = json.loads(content(served, "runs/photos/weights.json"))
        assert (row["weights"], row["scores"]["examples"]) == (RUN, 4)
        assert row["scores"]["top1"] == pytest.approx(facts["scores"]["test/top1"])
        assert row["scores"]["loss"] == pytest.approx(facts["scores"]["test/loss"], rel=1e-5)


def test_what_the_config_of_a_run_names_in_another_bucket_is_not_read(
    served: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(content(served, "runs/photos/config.json"))
    config["data"]["dataset"] = "gs://other/photos"
    for name, data in (("config.json", json.dumps(config).encode()), ("lock", b"{}")):
        served.objects.write("bkt", f"sent/{name}", data, "text/plain", {})
    error = refused(["evaluate", "--weights=gs://bkt/sent"], capsys)
    assert "only if you say so: add --config.data.dataset=gs://other/photos" in error


def test_the_draws_of_an_evaluator_are_written_into_a_bucket(served: Bucket) -> None:
    options = ["--dataset=gs://bkt/photos", "--split=test", "--evaluator=few_shot"]
    options += [
        "--evaluator.shots=1,",
        "--evaluator.draws=1",
        "--evaluator.draws_file=gs://bkt/out/draws.json",
    ]
    assert main(["evaluate", f"--weights={RUN}", *options, "--evaluator.train_split=train"]) == 0
    draws = json.loads(content(served, "out/draws.json"))["draws"]
    assert draws and all(len(draw["a"]) == 1 for draw in draws)


def test_all_that_take_weights_take_those_of_a_run_in_a_bucket(
    served: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "weights.npz").write_bytes(content(served, "runs/photos/weights.npz"))
    (tmp_path / "weights.json").write_bytes(content(served, "runs/photos/weights.json"))
    params = open_weights(tmp_path).params
    for address in (RUN, f"{RUN}/weights.npz"):
        assert_same(model_params(vit_jax.load_model(weights=address)), params)
    copy = tmp_path / "copy.npz"
    assert main(["convert", f"--source={RUN}", f"--target={copy}", "--layout=google"]) == 0
    assert_same(open_weights(copy).params, params)
    picture = tmp_path / "filters.png"
    assert main(["analyze", "filters", f"--weights={RUN}", f"--output={picture}"]) == 0


def test_runs_start_from_weights_in_a_bucket(served: Bucket, tmp_path: Path) -> None:
    start = [*TRAIN, f"--config.init_from={RUN}", "--config.optimizer.lr=1e-30"]
    assert main([*start, f"--workdir={tmp_path / 'next'}", "--report=off"]) == 0
    config = f"configs/photos.py:gs://bkt/photos,weights={RUN}"
    photos = ["train", f"--config={config}", "--config.total_steps=1"]
    photos += ["--config.optimizer.lr=1e-30"]
    assert main([*photos, f"--workdir={tmp_path / 'photos'}", "--report=off"]) == 0
    expected = vit_jax.load_model(weights=RUN, num_classes=0)
    for name in ("next", "photos"):
        started = vit_jax.load_model(weights=tmp_path / name, num_classes=0)
        assert_same(model_params(started), model_params(expected))
    assert main(["describe", f"--config={config}"]) == 0


def test_a_model_is_converted_into_a_bucket_and_read_from_it(
    served: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    target = "gs://bkt/hub/model.safetensors"
    command = ["convert", f"--source={RUN}", f"--target={target}", "--layout=timm"]
    assert main(command) == 0
    expected = open_weights(resolve(RUN)).params
    for address in (target, "gs://bkt/hub"):
        assert_same(model_params(vit_jax.load_model(weights=address)), expected)
    card = content(served, "hub/README.md").decode()
    assert "a run of vit\\_jax, step 2" in card and "photos, split train" in card
    assert "gs://" not in card.partition("## ")[0]  # Where it lay is nobody's concern.
    assert f"{target} exists already" in refused(command, capsys)
    program = ["convert", f"--source={RUN}", "--target=gs://bkt/a.onnx", "--layout=onnx"]
    assert "gcloud storage cp FILE gs://bkt/a.onnx" in refused(program, capsys)


def test_weights_in_parts(served: Bucket, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    whole = tmp_path / "model.safetensors"
    write_weights(whole, random_params(SMALL), SMALL, layout="timm")
    arrays = load_file(whole)
    places: dict[str, str] = {}
    for number, names in enumerate((list(arrays)[::2], list(arrays)[1::2]), 1):
        part = f"model-{number:05}-of-00002.safetensors"
        save_file({name: arrays[name] for name in names}, tmp_path / part)
        places |= dict.fromkeys(names, part)
    whole.unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    served.objects.add_folder(tmp_path, "bkt", "parts")
    for address in ("gs://bkt/parts", "gs://bkt/parts/model.safetensors.index.json"):
        assert_same(model_params(vit_jax.load_model(weights=address)), random_params(SMALL))


def test_images_and_outputs_in_a_bucket(served: Bucket, tmp_path: Path) -> None:
    photos = "gs://bkt/photos/test"
    rows = tmp_path / "rows.csv"
    command = ["predict", f"--weights={RUN}", "--images"]
    maps = "--attention_maps=gs://bkt/maps"
    named = [photos, "gs://bkt/photos/train/a/3.png"]
    assert main([*command, *named, f"--output={rows}", "--top_k=1", maps]) == 0
    with open(rows, newline="") as file:
        images = [row["image"] for row in csv.DictReader(file)]
    assert images == [*(f"{photos}/{c}/{n}.png" for c in "ab" for n in (0, 1)), named[1]]
    for name in ("test/a/0.png.png", "test/b/1.png.png", "train/a/3.png.png"):
        assert Image.open(io.BytesIO(content(served, f"maps/{name}"))).size == (8, 8)
    for suffix in ("npz", "parquet"):
        output = f"out/features.{suffix}"
        assert main([*command, photos, f"--embed=gs://bkt/{output}"]) == 0
    features = np.load(io.BytesIO(content(served, "out/features.npz")))
    assert features["images"].tolist() == images[:4] and features["features"].shape == (4, 16)
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(io.BytesIO(content(served, "out/features.parquet")))
    assert table["image"].to_pylist() == images[:4]
    assert not [name for name in served.objects.buckets["bkt"] if name.endswith(".probe")]


def test_reports_and_tables(
    served: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", RUN]) == 0
    assert f"the report is in {RUN}/report.html" in capsys.readouterr().out
    assert b"vit_jax evaluate --weights=gs://bkt/runs/photos" in content(
        served, "runs/photos/report.html"
    )
    again = tmp_path / "again"
    for name in ("config.json", "lock", "weights.npz", "weights.json", "versions.json"):
        again.mkdir(exist_ok=True)
        (again / name).write_bytes(content(served, f"runs/photos/{name}"))
    both = ["report", RUN, str(again), "--output=gs://bkt/out/both.html"]
    # A run on a disk may have been sent by anyone; it does not decide what is read.
    assert main(both) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("add --config.data.dataset=gs://bkt/photos")
    assert main([*both, "--config.data.dataset=gs://bkt/photos"]) == 0
    assert b"again" in content(served, "out/both.html")
    for runs in ("gs://bkt/runs", RUN, "gs://bkt/out/scores.json"):
        if runs.endswith(".json"):
            options = [f"--weights={RUN}", f"--output={runs}"]
            assert main(["evaluate", *options]) == 0
        output = "out/table.json"
        assert main(["paper", "--table=5", f"--runs={runs}", f"--output=gs://bkt/{output}"]) == 0
        assert RUN in capsys.readouterr().out
        assert json.loads(content(served, output))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["evaluate", "--weights=gs://bkt/no"], "is not the directory of a run"),
        (
            ["evaluate", "--weights=gs://bkt/no", "--dataset=gs://bkt/photos"],
            "nothing of this name",
        ),
        (["evaluate", "--weights=gs://other/run"], "there is no such bucket"),
        (["evaluate", "--weights=gs://"], "gs://BUCKET/NAME"),
        (["predict", f"--weights={RUN}", "--images=gs://bkt/no"], "no such image"),
        (["predict", f"--weights={RUN}", "--images=gs://other/a"], "there is no such bucket"),
        (
            ["predict", f"--weights={RUN}", "--images=gs://bkt/photos/*/a.png"],
            "patterns are not taken in a bucket; name a folder, such as gs://bkt/photos",
        ),
        (
            ["predict", f"--weights={RUN}", "--images=gs://bkt/photos", "--output=gs://bkt/a.csv"],
            "copy it when it is whole: gcloud storage cp FILE gs://bkt/a.csv",
        ),
        (
            ["predict", f"--weights={RUN}", "--images=gs://bkt/photos", "--embed=gs://other/a.npz"],
            "there is no such bucket",
        ),
        (
            [
                *("predict", f"--weights={RUN}", "--images=gs://bkt/photos"),
                "--attention_maps=gs://bkt/photos/maps",
            ],
            "lies among the images",
        ),
        (["report", "gs://bkt/no"], "not the directory of a run"),
        (["report", "gs://other/run"], "there is no such bucket"),
        (["paper", "--table=5", "--runs=gs://bkt/no"], "neither the directory of a run"),
        (["paper", "--table=5", "--runs=gs://other/no"], "there is no such bucket"),
        (["convert", f"--source={RUN}", "--layout=google", "--target=gs://other/a.npz"], "bucket"),
    ],
)
def test_mistakes(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(command, capsys)


def test_a_bucket_that_may_only_be_read_is_told_before_the_work(
    served: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    served.faults.access = "read"
    weights = [f"--weights={RUN}"]
    images = ["--images=gs://bkt/photos"]
    served.faults.counts.clear()
    for command in (
        ["evaluate", *weights, "--output=gs://bkt/a.json"],
        ["predict", *weights, *images, "--embed=gs://bkt/a.npz"],
        ["predict", *weights, *images, "--attention_maps=gs://bkt/maps"],
        ["convert", f"--source={RUN}", "--layout=google", "--target=gs://bkt/a.npz"],
        ["report", RUN],
    ):
        assert "no access" in refused(command, capsys)
    assert not served.faults.counts["ranged read", "well"]
    served.faults.access = "none"
    for command in (["evaluate", *weights], ["report", RUN], ["predict", *weights, *images]):
        assert "no access" in refused(command, capsys)


def test_a_bucket_that_does_not_answer_is_told_in_one_line(
    served: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patience = retrying.Patience(first=0.01, longest=0.05, total=0.1)
    monkeypatch.setattr(retrying.retrying, "patience", patience)
    monkeypatch.setattr(bucket_folder, "_listed", {})
    for kind in ("stat", "list", "read"):
        served.faults.inject(kind, "503")
    for command in (
        ["evaluate", f"--weights={RUN}"],
        ["predict", f"--weights={RUN}", "--images=gs://bkt/photos"],
        ["report", RUN],
        ["paper", "--table=5", "--runs=gs://bkt/runs"],
    ):
        assert "no good answer in" in refused(command, capsys)
