"""What a merge refuses, each by name: gaps, doubles, parts of other works, damage (issue 8's bad input)."""

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from conftest import SMALL
from parts_case import files_of, made
from vesu.cli import main
from vesu.data.phantom import write_dataset
from vesu.errors import ArgumentError, DataError, EvidenceError, FileError, FormatError, VesuError
from vesu.ledger import LedgerWriter
from vesu.run.folder import locked
from vesu.run.parts import PartReport, make_part, merge, read_part
from vesu.run.parts.adopting import read_masks
from vesu.run.parts.record import sealed

SCORER = ["pipeline=nx46", "n_threads=1"]
"""Masks without a search: nothing that a merge checks depends on what made them."""


def scorer_config(*more: str) -> vesu.RunConfig:
    return vesu.load_config(overrides=[*SCORER, *more], environment={})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("tiny") / "set", n_train=2, n_test=4, shape=(16, 16, 16), seed=1)


@pytest.fixture(scope="module")
def originals(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[PartReport]:
    return made(tiny, tmp_path_factory.mktemp("originals"), scorer_config(), "segment")


@pytest.fixture
def parts(originals: list[PartReport], tmp_path: Path) -> list[Path]:
    """Copies to damage, as if carried from another machine."""
    return [Path(shutil.copytree(part.folder, tmp_path / f"part-{k}")) for k, part in enumerate(originals)]


def refused(parts: list[Path], tmp_path: Path, kind: type[VesuError], *named: str) -> None:
    """The merge is refused with these words, and leaves nothing."""
    with pytest.raises(kind) as caught:
        merge(parts, tmp_path / "merged")
    for words in named:
        assert words in str(caught.value)
    assert not (tmp_path / "merged").exists()


def test_copies_merge_whatever_their_folders_are_called(parts: list[Path], tiny: Path, tmp_path: Path) -> None:
    report = merge(parts[::-1], tmp_path / "merged")
    assert [part.plan.part_id for part in report.parts] == [0, 1] and report.n_volumes == 4
    vesu.check_submission(tmp_path / "merged" / "submission.zip", tiny / "test_images")
    again = merge(parts, tmp_path / "merged")  # its own outputs are replaced
    assert again.submission == report.submission


# ---- parts that do not belong together


def test_a_missing_part_is_named_with_its_volumes(
    parts: list[Path], originals: list[PartReport], tmp_path: Path
) -> None:
    lost = originals[0].records[0].volume_id
    refused(parts[1:], tmp_path, DataError, "missing part 0 of 2", lost)


def test_a_doubled_part_is_named_with_its_folders(parts: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(parts[1], tmp_path / "copy")
    refused([*parts, copy], tmp_path, DataError, "part 1 in", str(parts[1]), str(copy))
    refused([parts[0], parts[0]], tmp_path, DataError, "part 0 in")


def test_no_parts_are_refused(tmp_path: Path) -> None:
    refused([], tmp_path, ArgumentError, "parts: got none")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"config": scorer_config("nx46.threshold_quantile=0.9")}, "config.nx46.threshold_quantile: 0.985"),
        ({"config": scorer_config("seed=5")}, "config.seed: 0"),
        ({"num_parts": 3}, "num_parts: 2"),
    ],
)
def test_a_part_of_another_config_or_division_is_refused(
    other: dict[str, Any], named: str, parts: list[Path], tiny: Path, tmp_path: Path
) -> None:
    how = {"num_parts": 2, "part_id": 1, "config": scorer_config(), **other}
    made_otherwise = make_part(tiny, tmp_path / "other", phase="segment", **how)
    refused([parts[0], made_otherwise.folder], tmp_path, DataError, named, str(parts[0]), str(tmp_path / "other"))


def test_settings_that_change_no_bit_may_differ(
    parts: list[Path], originals: list[PartReport], tiny: Path, tmp_path: Path
) -> None:
    config = scorer_config("n_threads=2", "max_feature_gib=1.0", "cache_gib=1")
    other = make_part(tiny, tmp_path / "other", phase="segment", num_parts=2, part_id=1, config=config)
    assert files_of(other) == files_of(originals[1])
    assert merge([parts[0], other.folder], tmp_path / "merged").n_volumes == 4


def test_a_part_of_other_data_is_refused(parts: list[Path], tiny: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(tiny, tmp_path / "set"))
    test = vesu.discover(changed).tests[0]
    vesu.write_volume(test.image, 255 - vesu.read_volume(test.image))
    other = make_part(changed, tmp_path / "other", phase="segment", num_parts=2, part_id=1, config=scorer_config())
    refused([parts[0], other.folder], tmp_path, DataError, f"data.{test.volume_id}")


def test_parts_of_different_phases_models_and_versions_are_refused(parts: list[Path], tmp_path: Path) -> None:
    for member, value, named in (
        ("phase", "features", "phase: 'segment'"),
        ("vesu", {"version": "0.0.1", "arithmetic": "fused"}, "vesu.version"),
        ("vesu", {"version": vesu.__version__, "arithmetic": "other"}, "vesu.arithmetic"),
        ("model", {"model.npz": "0" * 64}, "model"),
    ):
        folder = Path(shutil.copytree(parts[1], tmp_path / "other"))
        if member == "model":
            (folder / "model" / "model.npz").write_bytes(b"weights")
            value = {"model.npz": vesu.data.cache.content_id(b"weights")}
        resealed(folder, lambda content, member=member, value=value: {**content, member: value})
        refused([parts[0], folder], tmp_path, DataError, named)
        shutil.rmtree(folder)


def test_a_part_that_holds_what_does_not_fall_to_it_is_refused(parts: list[Path], tmp_path: Path) -> None:
    """An overlap, or a gap, that a seal of its own covers."""
    held = json.loads((parts[0] / "part.json").read_bytes())["volumes"]
    shutil.copytree(parts[0], tmp_path / "both", dirs_exist_ok=True)
    shutil.copytree(parts[1], tmp_path / "both", dirs_exist_ok=True)
    resealed(tmp_path / "both", lambda content: {**content, "volumes": [*held, *content["volumes"]]})
    refused([parts[0], tmp_path / "both"], tmp_path, DataError, str(tmp_path / "both"), "which fall to it")
    resealed(parts[1], lambda content: {**content, "volumes": content["volumes"][1:]})
    refused(parts, tmp_path, DataError, str(parts[1]), "which fall to it")


# ---- damage


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lengthen_log(path: Path) -> None:
    with LedgerWriter(path) as log:
        log.append("LATER", {"run_id": "x"}, ts_ns=2**62)


@pytest.mark.parametrize(
    ("name", "damage", "kind"),
    [
        ("part.json", lambda path: path.write_text("[]"), FormatError),
        ("part.json", lambda path: path.write_bytes(path.read_bytes()[:-20]), FormatError),
        ("part.json", lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": 1')), EvidenceError),
        ("part.json", lambda path: path.unlink(), DataError),
        ("events.jsonl", flip, EvidenceError),
        ("events.jsonl", lengthen_log, EvidenceError),
        ("events.jsonl", lambda path: path.unlink(), FileError),
        ("masks/*.tif", flip, EvidenceError),
        ("masks/*.tif", lambda path: path.unlink(), EvidenceError),
        ("segment/*.json", flip, EvidenceError),
        ("segment/*_views.npz", lambda path: path.write_bytes(b""), EvidenceError),
    ],
)
def test_a_damaged_part_is_refused_with_the_file_named(
    name: str, damage: Callable[[Path], object], kind: type[VesuError], parts: list[Path], tmp_path: Path
) -> None:
    path = next(parts[1].glob(name))
    damage(path)
    refused(parts, tmp_path, kind, str(parts[1]), path.name)


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "masks/../../escape", ""])
def test_a_path_out_of_the_part_is_refused(path: str, parts: list[Path], tmp_path: Path) -> None:
    def escaping(content: dict[str, Any]) -> dict[str, Any]:
        content["volumes"][0]["files"] = {path: "0" * 64}
        return content

    resealed(parts[0], escaping)
    refused(parts, tmp_path, FormatError, "below the part's folder")


@pytest.mark.parametrize(
    "change",
    [
        {"volumes": None},
        {"volumes": [{"volume_id": "../x", "sources": {}, "files": {}, "facts": {}}]},
        {"log": {}},
        {"part_id": 7},
        {"num_parts": 0},
        {"format": "vesu-part/9"},
        {"data": [1, 2]},
        {"phase": "else"},
    ],
)
def test_a_part_json_of_another_shape_is_refused(change: dict[str, Any], parts: list[Path], tmp_path: Path) -> None:
    resealed(parts[0], lambda content: {**content, **change})
    refused(parts, tmp_path, FormatError, "part.json")


def resealed(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """As somebody would do it who forges a part."""
    path = folder / "part.json"
    content = json.loads(path.read_bytes())
    content.pop("digest")
    content = change(content)
    path.write_text(json.dumps({**content, "digest": sealed(content)}))


# ---- folders


def test_an_unfinished_part_is_refused_with_what_to_do(parts: list[Path], tmp_path: Path) -> None:
    (parts[0] / "part.json").unlink()
    refused(parts, tmp_path, DataError, str(parts[0]), "go on with the same command")


def test_another_part_in_the_folder_is_refused_until_it_is_given_up(parts: list[Path], tiny: Path) -> None:
    words: dict[str, Any] = {"phase": "segment", "num_parts": 2, "config": scorer_config()}
    with pytest.raises(DataError, match="part_id: 0 in"):
        make_part(tiny, parts[0], part_id=1, **words)
    with pytest.raises(DataError, match=r"config\.seed: 0 in .* 9 in this command.*--restart"):
        make_part(tiny, parts[0], part_id=0, **{**words, "config": scorer_config("seed=9")})
    again = make_part(tiny, parts[0], part_id=1, **words, restart=True)
    assert again.plan.part_id == 1 and files_of(again) == files_of(read_part(parts[1]))


def test_files_of_somebody_else_are_left_alone(parts: list[Path], tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "events.jsonl").write_text("mine")
    with pytest.raises(DataError, match=r"events\.jsonl that no part wrote"):
        make_part(tiny, tmp_path / "else", phase="segment", config=scorer_config())
    with pytest.raises(DataError, match=r"events\.jsonl that no merge wrote"):
        merge(parts, tmp_path / "else")
    with pytest.raises(DataError, match="that no merge wrote"):
        merge(parts, parts[0])
    assert (tmp_path / "else" / "events.jsonl").read_text() == "mine"
    assert read_part(parts[0]).plan.part_id == 0


def test_two_processes_do_not_share_a_part(parts: list[Path], tiny: Path) -> None:
    with locked(parts[0], ".vesu-part"), pytest.raises(FileError) as caught:
        make_part(tiny, parts[0], phase="segment", num_parts=2, config=scorer_config())
    assert caught.value.errno == errno.EWOULDBLOCK


def test_a_full_disk_is_said_and_not_taken_for_a_part(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vesu.data.cache import ArrayCache

    monkeypatch.setattr(ArrayCache, "put", lambda *_, **__: "refused")
    config = vesu.load_config(overrides=SMALL, environment={})
    with pytest.raises(FileError, match="no room for rows 0"):
        make_part(tiny, tmp_path / "part", phase="features", config=config)
    assert not (tmp_path / "part" / "part.json").exists()


def test_data_without_test_volumes_has_no_masks_to_make(tiny: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny, tmp_path / "set"))
    shutil.rmtree(data / "test_images")
    with pytest.raises(DataError, match="no test volume"):
        make_part(data, tmp_path / "part", phase="segment", config=scorer_config())


def test_preflight_stops_a_part_before_it_works(tiny: Path, tmp_path: Path) -> None:  # R02
    data = Path(shutil.copytree(tiny, tmp_path / "set"))
    test = vesu.discover(data).tests[0]
    vesu.write_volume(test.image, np.full((16, 16, 16), 7, np.uint8))
    with pytest.raises(vesu.errors.PreflightError, match="every voxel is 7"):
        for number in range(4):  # alone in its part, it is in the sample
            make_part(
                data, tmp_path / str(number), phase="segment", num_parts=4, part_id=number, config=scorer_config()
            )


# ---- masks for another run


def test_masks_of_another_model_or_phase_are_not_taken(
    parts: list[Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = merge(parts, tmp_path / "merged")
    assert read_masks(merged.folder).root == merged.root
    words = ["run", str(tiny), "--out", str(tmp_path / "run"), "--masks"]
    assert main([*words, str(parts[0])]) == 2
    assert "holds no merge.json" in capsys.readouterr().err
    assert main([*words, str(merged.folder), "--pipeline", "nx46"]) == 2
    assert "masks: got" in capsys.readouterr().err
    content = json.loads((merged.folder / "merge.json").read_bytes())
    for change, kind in (({"phase": "features"}, DataError), ({"format": "x"}, FormatError)):
        other = {name: value for name, value in content.items() if name != "digest"} | change
        (merged.folder / "merge.json").write_text(json.dumps({**other, "digest": sealed(other)}))
        with pytest.raises(kind):
            read_masks(merged.folder)
    (merged.folder / "merge.json").write_text(json.dumps({**content, "submission_sha256": "0"}))
    with pytest.raises(EvidenceError, match="not what was sealed"):
        read_masks(merged.folder)


def test_a_report_is_a_frozen_value(originals: list[PartReport]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        originals[0].root = ""  # type: ignore[misc]
