"""ImageNet-1k and ImageNet-21k from their archives."""

import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.pretrain import get_config
from tests.data import archives
from tests.data.listed import label_of, records_of
from vit_jax.__main__ import main
from vit_jax.data.preparation.archives import index_flat_tar
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.preparation.tar_index import Index
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Source
from vit_jax.data.sources.splits import split_names
from vit_jax.errors import NoDataError, UserError

IMAGES = archives.images(30)


def contents(source: Source) -> dict[bytes, str]:
    """The class of each image by its bytes."""
    return {r.image: source.class_names[label_of(r)] for r in records_of(source)}


def expected(of: archives.Images) -> dict[bytes, str]:
    return {data: name for name, files in of.items() for data in files.values()}


def files_of(directory: str | Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("write", [archives.write_fall_2011, archives.write_winter_2021])
def test_both_releases_of_imagenet21k(
    write: Callable[[Path, archives.Images], None], tmp_path: Path
) -> None:
    write(tmp_path / "archives", IMAGES)
    data_dir = str(tmp_path / "data")
    directory = prepare("imagenet21k", data_dir, archives=str(tmp_path / "archives"))
    assert directory == f"{data_dir}/imagenet21k/1.0.0"
    source = open_source("imagenet21k", "full", data_dir=data_dir)
    assert list(source.class_names) == sorted(IMAGES)
    assert contents(source) == expected(IMAGES)
    # A slice has many classes: the order is not that of the archive.
    tenth = open_source("imagenet21k", "full[:10%]", data_dir=data_dir)
    assert len({r.label for r in records_of(tenth)}) >= 8
    assert {".preparing", "unpacked.tar"}.isdisjoint(p.name for p in Path(directory).rglob("*"))


def test_class_tars_that_were_unpacked_give_the_same(tmp_path: Path) -> None:
    archives.write_winter_2021(tmp_path / "packed", IMAGES)
    with tarfile.open(tmp_path / "packed/winter21_whole.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    found = []
    for name in ("packed", "unpacked", "unpacked/winter21_whole"):
        data_dir = str(tmp_path / "data" / name)
        prepare("imagenet21k", data_dir, archives=str(tmp_path / name))
        source = open_source("imagenet21k", "full", data_dir=data_dir)
        found.append([(r.image, r.label) for r in records_of(source)])
    assert found[0] == found[1] == found[2]


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    archives.write_fall_2011(tmp_path / "downloads/manual", IMAGES)
    archives.write_fall_2011(tmp_path / "other/downloads/manual", IMAGES)
    # downloads/manual is where TFDS wants such files.
    one = prepare("imagenet21k", str(tmp_path), shard_bytes=20_000)
    many = prepare("imagenet21k", str(tmp_path / "other"), workers=3, shard_bytes=20_000)
    assert files_of(one) == files_of(many)
    assert sum(".array_record-" in name for name in files_of(one)) > 3


@pytest.fixture(scope="module")
def ilsvrc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ilsvrc")
    train = archives.images(1000, each=1)
    names = list(train)
    validation = [(names[i], archives.photo(10**6 + i)) for i in (7, 999, 0, 500, 7)]
    archives.write_ilsvrc_2012(directory, train, validation)
    return directory


def test_imagenet_1k(ilsvrc: Path, tmp_path: Path) -> None:
    data_dir = str(tmp_path)
    directory = prepare("imagenet2012", data_dir, archives=str(ilsvrc))
    assert directory == f"{data_dir}/imagenet2012/5.1.0"
    train = open_source("imagenet2012", "train", data_dir=data_dir)
    assert contents(train) == expected(archives.images(1000, each=1))
    validation = open_source("imagenet2012", "validation", data_dir=data_dir)
    names = archives.wordnet_ids(1000)
    # ILSVRC numbers classes in another order than that of the WordNet ids, which is the labels'.
    assert sorted((r.label, r.image) for r in records_of(validation)) == sorted(
        (i, archives.photo(10**6 + i)) for i in (7, 999, 0, 500, 7)
    )
    assert list(validation.class_names) == sorted(names)


def test_a_flat_tar_is_indexed_again_with_another_development_kit(
    ilsvrc: Path, tmp_path: Path
) -> None:
    path = ilsvrc / "ILSVRC2012_img_val.tar"
    for labels in ([7, 999, 0, 500, 7], [1, 2, 3, 4, 5]):
        names = (f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 6))
        index_flat_tar(tmp_path, path, dict(zip(names, labels, strict=True)))
        assert Index(tmp_path).labels.tolist() == labels


def test_what_is_missing_is_named_with_where_to_put_it(ilsvrc: Path, tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_img_train.tar").symlink_to(ilsvrc / "ILSVRC2012_img_train.tar")
    message = (
        f"--dataset=imagenet2012: ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz are not "
        f"in {tmp_path}; download them from https://image-net.org/download (sign in there) into "
        "that directory, or name another one with --archives=DIR"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        prepare("imagenet2012", str(tmp_path / "data"), archives=str(tmp_path))
    with pytest.raises(UserError, match=r"winter21_whole.tar.gz .* or fall11_whole.tar .* not in"):
        prepare("imagenet21k", str(tmp_path / "data"))


def test_training_tells_how_to_prepare(tmp_path: Path) -> None:
    command = f"python -m vit_jax prepare --dataset=imagenet21k --data_dir={tmp_path}"
    with pytest.raises(NoDataError, match=f"is not prepared in .* run: {command} --archives=DIR"):
        open_source("imagenet21k", "full", data_dir=str(tmp_path))
    with pytest.raises(NoDataError, match="did you mean 'imagenet21k'"):
        open_source("imagenet21kk", "full", data_dir=str(tmp_path))


def test_an_archive_that_ends_too_early(tmp_path: Path) -> None:
    archives.write_fall_2011(tmp_path, IMAGES)
    whole = (tmp_path / "fall11_whole.tar").read_bytes()
    for length in (len(whole) // 2, 700):
        (tmp_path / "fall11_whole.tar").write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged or not whole .* download it again"):
            prepare("imagenet21k", str(tmp_path / "data"), archives=str(tmp_path))
    archives.write_winter_2021(tmp_path / "winter", IMAGES)
    packed = tmp_path / "winter/winter21_whole.tar.gz"
    packed.write_bytes(packed.read_bytes()[:-3000])
    with pytest.raises(UserError, match="ends too early; complete its download"):
        prepare("imagenet21k", str(tmp_path / "data"), archives=str(tmp_path / "winter"))


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_header_that_is_damaged_or_cut_away_ends_no_tar(is_cut: bool, tmp_path: Path) -> None:
    archives.write_fall_2011(tmp_path, IMAGES)
    path = tmp_path / "fall11_whole.tar"
    whole = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:  # The header of a class tar in the middle.
        header = archive.getmembers()[15].offset
    whole[header] ^= 0xFF
    path.write_bytes(whole[:header] if is_cut else whole)
    with pytest.raises(UserError, match="damaged or not whole .* download it again"):
        prepare("imagenet21k", str(tmp_path / "data"), archives=str(tmp_path))


def test_two_releases_and_a_class_that_comes_twice(tmp_path: Path) -> None:
    archives.write_fall_2011(tmp_path, IMAGES)
    archives.write_winter_2021(tmp_path, IMAGES)
    with pytest.raises(UserError, match="holds two releases"):
        prepare("imagenet21k", str(tmp_path / "data"), archives=str(tmp_path))
    (tmp_path / "winter21_whole.tar.gz").unlink()
    twice = [*archives.class_tars(IMAGES), next(archives.class_tars(IMAGES))]
    (tmp_path / "fall11_whole.tar").write_bytes(archives.tar(twice))
    with pytest.raises(UserError, match=r"n\d{8}.tar is in it twice"):
        prepare("imagenet21k", str(tmp_path / "data"), archives=str(tmp_path))


def test_long_names_and_directories_in_tars(tmp_path: Path) -> None:
    name, long = archives.wordnet_ids(1)[0], "x" * 150 + ".JPEG"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        inner = archives.tar([("deep/", b""), (f"deep/{long}", archives.photo(1))], form)
        place = tmp_path / str(form)
        place.mkdir()
        (place / "fall11_whole.tar").write_bytes(archives.tar([(f"{name}.tar", inner)], form))
        prepare("imagenet21k", str(place), archives=str(place))
        source = open_source("imagenet21k", "full", data_dir=str(place))
        assert contents(source) == {archives.photo(1): name}


def test_what_is_broken_is_left_out_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vit_jax")
    names = archives.wordnet_ids(4)
    of = archives.images(2) | {names[2]: {}, names[3]: {f"{names[3]}_1.JPEG": b"no image"}}
    cut = archives.photo(5)[:-300]
    of[names[0]] = of[names[0]] | {"cut.JPEG": cut}
    archives.write_fall_2011(tmp_path, of)
    directory = Path(prepare("imagenet21k", str(tmp_path / "data"), archives=str(tmp_path)))
    listed = (directory / "left_out.csv").read_text().splitlines()
    assert listed[0] == "split,name,class,reason,twin"
    assert sorted(line.split(",")[:3] for line in listed[1:]) == sorted(
        [
            ["full", f"{names[0]}/cut.JPEG", names[0]],
            ["full", f"{names[3]}/{names[3]}_1.JPEG", names[3]],
        ]
    )
    assert all("cannot read the image" in line for line in listed[1:])
    source = open_source("imagenet21k", "full", data_dir=str(tmp_path / "data"))
    assert contents(source) == expected(archives.images(2))
    assert list(source.class_names) == names  # A class without images keeps its number.
    assert f"full: 1 class has no image: {names[2]}" in caplog.text
    assert f"without what was left out, 1 class has no image: {names[3]}" in caplog.text
    assert f"they are listed in {directory}/left_out.csv" in caplog.text


def test_a_second_start_does_nothing_and_other_options_are_refused(tmp_path: Path) -> None:
    archives.write_fall_2011(tmp_path, IMAGES)
    data_dir = str(tmp_path / "data")
    first = prepare("imagenet21k", data_dir, archives=str(tmp_path), short_side=20)
    (tmp_path / "fall11_whole.tar").unlink()  # It is not needed again.
    assert prepare("imagenet21k", data_dir, short_side=20) == first
    with pytest.raises(UserError, match="was prepared with --short_side=20, no --exclude; choose"):
        prepare("imagenet21k", data_dir)


def test_a_config_finds_what_was_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives.write_fall_2011(tmp_path, IMAGES)
    data = f"--data_dir={tmp_path / 'data'}"
    flags = ["--dataset=imagenet21k", data, f"--archives={tmp_path}", "--workers=1"]
    assert main(["prepare", *flags]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/data/imagenet21k/1.0.0\n"
    config = get_config("b16,imagenet21k")
    for split in (config.data.train, config.evals.val.split):
        assert split_names(split) == ("full",)
    source = open_source(config.data.dataset, "full[40:]", data_dir=f"{tmp_path / 'data'}")
    assert (len(source), len(source.class_names)) == (80, 30)
    assert main(["prepare", "--dataset=digits", f"--archives={tmp_path}"]) == 2
    assert "--archives would be ignored: TFDS writes 'digits'" in capsys.readouterr().err
