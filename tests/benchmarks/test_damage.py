"""The benchmark that damages files: that it sees what goes wrong."""

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.damage import checkpoints, downloads, images
from benchmarks.damage.__main__ import is_fault, run
from benchmarks.damage.damages import DAMAGES, Case, Donors, apply, cases_of, counterpart
from benchmarks.damage.kinds import KINDS
from benchmarks.damage.outcomes import End, Output, captured, fault_of
from benchmarks.damage.pool import Limits, Pool, Result
from benchmarks.damage.table import as_markdown

FAULTS = "tests.programs.damage_faults"


def test_each_fault_is_seen_and_the_next_case_runs(tmp_path: Path) -> None:
    with Pool(tmp_path, Limits(seconds=3, megabytes=100)) as pool:
        results = run(pool, tmp_path, [FAULTS], None, 0)
        assert {result.case.file: result.end for result in results} == {
            "fine": End.EQUAL,
            "refuses": End.REFUSED,
            "raises": End.TRACEBACK,
            "warns": End.TRACEBACK,
            "hangs": End.TIME,
            "eats": End.MEMORY,
            "dies": End.DIED,
            "differs": End.WRONG,
            "fine again": End.EQUAL,
        }
        assert "KeyError: 'a fault of the program' (damage_faults.py:" in results[2].detail
        assert [is_fault(result) for result in results].count(True) == 6
        table = as_markdown(results, ["--only", "x"], 1)
        assert "| emptied | 9 | 2 | 1 | 6 |" in table
        assert "| differs | 1 |  |  | 1 |" in table
        assert "differs emptied 0: wrong numbers: 1 instead of 2" in table
        # What has been run is not run again.
        again: list[Result] = []
        assert run(pool, tmp_path, [FAULTS], None, 0, report=again.append) == results
        assert again == []
        assert len(run(pool, tmp_path, [FAULTS], 4, 0)) == 4


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_changes_a_file(tmp_path: Path, damage: str) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(bytes(range(100)))
    other.write_bytes(b"other")
    apply(Case("kind", "file", damage), path, Donors(other, other))
    assert (
        not path.is_file() or path.stat().st_size != 100 or path.read_bytes() != bytes(range(100))
    )
    if damage == "one bit flipped":
        pairs = zip(path.read_bytes(), range(100), strict=True)
        assert sum((a ^ b).bit_count() for a, b in pairs) == 1


def test_only_what_has_a_donor_is_replaced(tmp_path: Path) -> None:
    case = Case("kind", "file", "none")
    without = {each.damage for each in cases_of(case, Donors())}
    assert set(DAMAGES) - without == {"that of another step", "that of another run"}
    both = cases_of(case, Donors(tmp_path, tmp_path), flips=3)
    assert {each.damage for each in both} == set(DAMAGES)
    assert [each.damage for each in both].count("one bit flipped") == 3
    assert len({each.key for each in both}) == len(both)


def test_files_named_by_digests_are_matched_by_their_order(tmp_path: Path) -> None:
    for root, names in (("one", "ab"), ("two", "xyz")):
        for name in names:
            (tmp_path / root / "d" / name).mkdir(parents=True)
            (tmp_path / root / "d" / name).rmdir()
            (tmp_path / root / "d" / name).touch()
    one, two = tmp_path / "one", tmp_path / "two"
    assert counterpart(one / "d/b", one, two) == two / "d/y"
    assert counterpart(two / "d/z", two, one) == one / "d/b"


def test_output_of_libraries_is_kept_and_judged(capfd: pytest.CaptureFixture[str]) -> None:
    with captured() as printed:
        os.write(2, b"Traceback (most recent call last):\n  File x\nOSError: no\n")
        text = printed()
    assert capfd.readouterr().err == ""
    fault = fault_of(Output(text, "one line"))
    assert fault is not None and fault.end == End.TRACEBACK and "OSError: no" in fault.detail
    assert fault_of(Output("a warning\n", "one line")) is None
    assert fault_of(Output("", "two\nlines")) is not None
    assert fault_of(Output("x" * 2000)) is not None


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A run that was left alone, and an equal one."""
    for name in ("whole", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.npz").write_bytes(b"weights")
        lines = [f'{{"step": {i}, "loss": {i}.5, "time/x": {len(name)}}}\n' for i in (1, 2, 3, 4)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(lines))
    return tmp_path / "whole", tmp_path / "run"


def test_a_resumed_run_is_compared_with_one_left_alone(runs: tuple[Path, Path]) -> None:
    whole, workdir = runs
    broken = Case("checkpoints", "checkpoints/3/state/_METADATA", "deleted")

    def end(text: str, error: str | None = None, case: Case = broken) -> End:
        return checkpoints.judge(case, Output(text, error), workdir, whole).end

    assert end("resuming after step 3 of 4") == End.EQUAL
    assert end("resuming after step 2 of 4") == End.FELL_BACK
    assert end("") == End.LOST
    assert end("", "none is whole") == End.LOST
    assert end("", "none is whole", replace(broken, variant="both")) == End.REFUSED
    assert end("", "damaged", Case("checkpoints", "config.json", "emptied")) == End.REFUSED
    (workdir / "metrics.jsonl").write_text('{"step": 4, "loss": 4.5}\n')
    assert end("resuming after step 3 of 4") == End.WRONG
    gone = Case("checkpoints", "metrics.jsonl", "deleted")
    assert end("resuming after step 3 of 4", case=gone) == End.EQUAL
    (workdir / "weights.npz").write_bytes(b"others")
    assert end("resuming after step 3 of 4") == End.WRONG


def test_images_must_keep_their_pixels_or_be_left_out_with_a_word() -> None:
    whole = Counter([b"a", b"b", b"c"])

    def end(variant: str, found: str, text: str = "", damaged: bytes | None = None) -> End:
        case = Case("images", "train/cat/png.png", "truncated", variant)
        value = Counter(bytes([each]) for each in found.encode())
        return images.judge(case, Output(text, None, value), whole, b"b", damaged).end

    assert end("skip after", "abc") == End.EQUAL
    assert end("skip after", "ac", "skipped png.png") == End.LEFT_OUT
    assert end("skip after", "ac") == End.WRONG
    assert end("stop after", "ac", "skipped png.png") == End.WRONG
    assert end("skip after", "ab", "skipped png.png") == End.WRONG
    assert end("skip after", "axc", damaged=b"x") == End.AS_BYTES
    assert end("skip after", "axc") == End.WRONG
    refused = Output("", "train/cat/png.png: cannot read the image")
    case = Case("images", "train/cat/png.png", "truncated", "stop after")
    assert images.judge(case, refused, whole, b"b", None).end == End.REFUSED
    case = Case("images", "train/cat/png.png", "truncated", "skip after")
    assert images.judge(case, refused, whole, b"b", None).end == End.LOST


def test_a_download_must_be_well_when_the_server_is() -> None:
    case = Case("downloads", "server", "an empty body", "once")
    right, wrong, refused = Output("", None, 1), Output("", None, 2), Output("", "try again")

    def end(first: Output, second: Output, asked: int = 1) -> End:
        return downloads.judge(case, first, second, 1, asked=asked).end

    assert end(right, right) == End.EQUAL
    assert end(right, right, asked=2) == End.AGAIN
    assert end(refused, right) == End.REFUSED
    assert end(wrong, right) == End.WRONG
    assert end(right, wrong) == End.WRONG
    assert end(refused, refused) == End.LOST


def test_the_worker_makes_its_files_once(tmp_path: Path) -> None:
    for _ in range(2):
        with Pool(tmp_path, Limits()) as pool:
            assert len(pool.prepare(FAULTS)) == 9
    shutil.rmtree(tmp_path / FAULTS)
    with Pool(tmp_path, Limits()) as pool:
        assert len(pool.prepare(FAULTS)) == 9


@pytest.mark.slow
def test_a_hundred_damages_that_are_drawn_end_as_they_may(tmp_path: Path) -> None:
    with Pool(tmp_path, Limits()) as pool:
        results = run(pool, tmp_path, list(KINDS), draw=100, seed=0)
    assert len(results) == 100
    assert [f"{r.case.key}: {r.end}: {r.detail}" for r in results if is_fault(r)] == []
