"""The submission and every reason to refuse one (R04, R05)."""

import io
import os
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tests import reference_tiff as reference

from vesu.data.volumes import encode_volume, write_volume
from vesu.errors import ArgumentError, FileError, SubmissionError, VesuError
from vesu.submission import check_submission, write_submission

SHAPE = (4, 20, 30)
EXPECTED = {"12": SHAPE, "7": (2, 8, 8)}


def mask(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).random(shape) < 0.1).astype(np.uint8)


def masks() -> list[tuple[str, Any]]:
    return [("12", mask()), ("7", mask((2, 8, 8)))]


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def good() -> dict[str, bytes]:
    return {f"{name}.tif": encode_volume(data, "lzw") for name, data in masks()}


# R04, R05
def test_a_submission_is_published_checked(tmp_path: Path) -> None:
    path = tmp_path / "submission.zip"
    report = write_submission(path, iter(masks()), expected=EXPECTED)
    assert report == check_submission(path, EXPECTED)
    assert report.n_bytes == path.stat().st_size
    assert [(m.name, m.volume_id, m.shape) for m in report.members] == [
        ("12.tif", "12", SHAPE),
        ("7.tif", "7", (2, 8, 8)),
    ]
    assert report.members[0].ink_ratio == mask().mean()
    assert report.to_json()["members"][1]["name"] == "7.tif"
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        for info, (_, data) in zip(file.infolist(), masks(), strict=True):
            assert (info.compress_type, info.date_time) == (zipfile.ZIP_DEFLATED, (1980, 1, 1, 0, 0, 0))
            assert info.external_attr == 0o644 << 16
            np.testing.assert_array_equal(tifffile.imread(io.BytesIO(file.read(info))), data)
    assert list(tmp_path.iterdir()) == [path]


# R05
def test_the_bytes_are_reproducible(tmp_path: Path) -> None:
    digests = set()
    for n_threads in (1, 2, 3, 8):
        report = write_submission(tmp_path / f"{n_threads}.zip", masks(), expected=EXPECTED, n_threads=n_threads)
        digests.add(report.sha256)
        time.sleep(0.01)
    assert len(digests) == 1


# R05: one mask at a time.
def test_masks_are_streamed(tmp_path: Path) -> None:
    alive = 0

    class Counted(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def produce() -> Iterator[tuple[str, Any]]:
        nonlocal alive
        for i in range(6):
            alive += 1
            assert alive <= 2
            yield f"v{i}", mask().view(Counted)

    write_submission(tmp_path / "a.zip", produce(), expected={f"v{i}": SHAPE for i in range(6)})


WRONG_MASKS: dict[str, tuple[list[tuple[str, Any]], str]] = {
    "2-D": ([("12", mask((20, 30)))], r"12\.tif: got a 2-D array of uint8, shape \(20, 30\); accepted: a 3-D"),
    "float": ([("12", mask().astype(np.float32))], r"12\.tif: got a 3-D array of float32"),
    "bool": ([("12", mask().astype(bool))], r"12\.tif: got a 3-D array of bool"),
    "list": ([("12", mask().tolist())], r"12\.tif: got list"),
    "0/255": ([("12", mask() * 255)], r"12\.tif: got values up to 255; accepted: 0 and 1"),
    "label 2": ([("12", mask() + 1)], r"12\.tif: got values up to 2"),
    "wrong shape": ([("12", mask((4, 30, 20)))], r"12\.tif: got shape \(4, 30, 20\); accepted: \(4, 20, 30\)"),
    "missing": (masks()[:1], r"missing members: got 1 masks; accepted: exactly 12\.tif, 7\.tif"),
    "none": ([], "missing members: got 0"),
    "extra": ([*masks(), ("9", mask())], r"9\.tif: an extra member"),
    "twice": ([masks()[0], masks()[0]], r"12\.tif: got it after 12\.tif"),
    "order": (masks()[::-1], r"12\.tif: got it after 7\.tif; accepted: ascending"),
    "a path": ([("../12", mask())], r"\.\./12\.tif: an extra member"),
}


# R04
@pytest.mark.parametrize("name", WRONG_MASKS)
def test_wrong_masks_are_refused_before_anything_is_published(tmp_path: Path, name: str) -> None:
    wrong, message = WRONG_MASKS[name]
    path = tmp_path / "submission.zip"
    path.write_bytes(b"the one before")
    with pytest.raises(SubmissionError, match=message):
        write_submission(path, wrong, expected=EXPECTED)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


# R04
@pytest.mark.parametrize(
    "expected", [{}, {"a/b": SHAPE}, {"..": SHAPE}, {"": SHAPE}, {"1": (1, 2)}, {"1": (0, 1, 1)}, {1: SHAPE}]
)
def test_an_unusable_expectation_is_named(tmp_path: Path, expected: Any) -> None:
    with pytest.raises(ArgumentError, match="expected: got"):
        write_submission(tmp_path / "a.zip", [], expected=expected)
    (tmp_path / "b.zip").write_bytes(archive(good()))
    with pytest.raises(ArgumentError, match="expected: got"):
        check_submission(tmp_path / "b.zip", expected)


# R05: what is read back wrongly is not published.
def test_damage_on_the_way_to_the_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vesu.submission

    monkeypatch.setattr(vesu.submission, "encode_volume", lambda *_, **__: encode_volume(mask((2, 2, 2))))
    with pytest.raises(SubmissionError, match=r"12\.tif: got shape \(2, 2, 2\)"):
        write_submission(tmp_path / "a.zip", masks(), expected=EXPECTED)
    assert list(tmp_path.iterdir()) == []


def tif(data: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, data, photometric="minisblack", **options)
    return buffer.getvalue()


def changed(**members: bytes | None) -> bytes:
    """The good archive with members (named without ``.tif``) replaced, added, or dropped (None)."""
    every = good() | {name if "." in name else f"{name}.tif": data for name, data in members.items()}
    return archive({name: data for name, data in every.items() if data is not None})


def doubled() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate"):
        buffer = io.BytesIO(archive(good()))
        with zipfile.ZipFile(buffer, "a") as file:
            file.writestr("7.tif", good()["7.tif"])
    return buffer.getvalue()


def patched(edit: Callable[[bytearray, int, int], None]) -> bytes:
    """The good archive with the first member's local and central headers edited."""
    data = bytearray(archive(good()))
    edit(data, data.index(b"PK\3\4"), data.index(b"PK\1\2"))
    return bytes(data)


def encrypted(data: bytearray, local: int, central: int) -> None:
    data[local + 6] |= 1
    data[central + 8] |= 1


def other_method(data: bytearray, local: int, central: int) -> None:
    data[local + 8] = data[central + 10] = 99


def declared_huge(data: bytearray, local: int, central: int) -> None:
    for at in (local + 22, central + 24):
        data[at : at + 4] = struct.pack("<I", 3 << 30)


def flipped(data: bytearray, local: int, central: int) -> None:
    data[local + 60] ^= 0x55


def overlapping() -> bytes:
    """Two table entries that share one member's data."""
    data = archive({"12.tif": good()["12.tif"]})
    entry_at = data.index(b"PK\1\2")
    end_at = data.index(b"PK\5\6")
    entry = data[entry_at:end_at]
    size = len(entry) * 2
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, size, entry_at, 0)
    return data[:entry_at] + entry + entry.replace(b"12.tif", b"7x.tif") + end


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "2-D": (lambda: changed(**{"12": tif(mask((20, 30)))}), r"12\.tif: a 2-D image of shape \(20, 30\)"),
    "float": (lambda: changed(**{"12": tif(mask().astype("f4"))}), r"12\.tif: got dtype float32"),
    "16 bits": (lambda: changed(**{"12": tif(mask().astype("u2"))}), r"12\.tif: got dtype uint16"),
    "0/255": (lambda: changed(**{"12": tif(mask() * 255)}), r"12\.tif: got values up to 255"),
    "wrong shape": (lambda: changed(**{"12": tif(mask((4, 20, 31)))}), r"12\.tif: got shape \(4, 20, 31\)"),
    "one slice too few": (lambda: changed(**{"12": tif(mask((3, 20, 30)))}), r"12\.tif: got shape \(3, 20, 30\)"),
    "colour": (lambda: changed(**{"12": tif(mask((4, 20, 30, 3)), planarconfig=1)}), r"12\.tif: page 0"),
    "missing": (lambda: changed(**{"7": None}), r"missing members: 7\.tif"),
    "empty": (lambda: archive({}), "an empty archive"),
    "extra volume": (lambda: changed(**{"8": good()["7.tif"]}), r"8\.tif: an extra member"),
    "extra file": (lambda: changed(**{"notes.txt": b"hi"}), r"'notes\.txt': an extra member"),
    "nested": (lambda: archive({f"masks/{n}": d for n, d in good().items()}), r"masks/12\.tif: a member in a folder"),
    "climbing": (lambda: archive({**good(), "../7.tif": b""}), r"\.\./7\.tif: a member in a folder"),
    "twice": (doubled, r"7\.tif: twice in the archive"),
    "truncated TIFF": (lambda: changed(**{"12": good()["12.tif"][:-40]}), r"12\.tif: .*truncated"),
    "no TIFF": (lambda: changed(**{"12": b"a mask, honestly"}), r"12\.tif: not a TIFF"),
    "truncated zip": (lambda: archive(good())[:-30], "damaged or truncated zip"),
    "half a zip": (lambda: archive(good())[: len(archive(good())) // 2], "damaged or truncated zip"),
    "no zip": (lambda: b"no zip at all" * 99, "damaged or truncated zip"),
    "nothing": (lambda: b"", "damaged or truncated zip"),
    "encrypted": (lambda: patched(encrypted), r"12\.tif: encrypted"),
    "other method": (lambda: patched(other_method), r"12\.tif: compression method 99"),
    "bzip2": (lambda: archive(good(), zipfile.ZIP_BZIP2), r"12\.tif: compression method 12"),
    "declared huge": (lambda: patched(declared_huge), r"12\.tif: declares 3221225472 bytes .*zip bomb"),
    "bomb": (lambda: changed(**{"12": bytes(32 << 20)}), r"12\.tif: declares 33554432 bytes .*zip bomb"),
    "flipped bit": (lambda: patched(flipped), r"12\.tif"),
}


# R04
@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    path = tmp_path / "submission.zip"
    path.write_bytes(make())
    with pytest.raises(SubmissionError, match=message):
        check_submission(path, EXPECTED)


# R04
def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(overlapping())
    with pytest.raises(SubmissionError, match=r"damaged|over each other"):
        check_submission(tmp_path / "a.zip")


# R04: without expectations most refusals still stand; a bomb is bounded by what Deflate can do.
@pytest.mark.parametrize("name", ["2-D", "float", "0/255", "nested", "twice", "truncated TIFF", "truncated zip"])
def test_refused_without_expectation(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    (tmp_path / "a.zip").write_bytes(make())
    with pytest.raises(SubmissionError, match=message):
        check_submission(tmp_path / "a.zip")


# R04
def test_stored_members_and_a_folder_of_images_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "test_images").mkdir()
    for volume_id, shape in EXPECTED.items():
        write_volume(tmp_path / "test_images" / f"{volume_id}.tif", np.zeros(shape, np.uint16))
    (tmp_path / "a.zip").write_bytes(archive(good(), zipfile.ZIP_STORED))
    assert len(check_submission(tmp_path / "a.zip", tmp_path / "test_images").members) == 2
    assert len(check_submission(str(tmp_path / "a.zip"), str(tmp_path / "test_images")).members) == 2
    for bad in (tmp_path / "none", tmp_path / "a.zip", 3):
        with pytest.raises(ArgumentError, match="expected: got"):
            check_submission(tmp_path / "a.zip", bad)  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match="expected: got no volume"):
        check_submission(tmp_path / "a.zip", tmp_path / "empty")


# R04
def test_a_zip_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "none.zip", 2), (tmp_path, 21)):
        with pytest.raises(FileError) as caught:
            check_submission(path)
        assert (caught.value.errno, caught.value.filename) == (code, str(path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SubmissionError, match="not a regular file"):
        check_submission(tmp_path / "pipe")


# R04: mutated archives end in an error of ours or in a report, never in anything else.
def test_mutated_archives_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    seed = archive(good())
    path = tmp_path / "a.zip"
    refused = 0
    for _ in range(600):
        mutant = bytearray(seed)
        for _ in range(rng.integers(1, 4)):
            mutant[rng.integers(0, len(mutant))] = rng.integers(0, 256)
        path.write_bytes(mutant[: rng.integers(len(mutant) // 2, len(mutant) * 3)])
        try:
            check_submission(path, EXPECTED)
        except SubmissionError:
            refused += 1
        except VesuError as error:
            raise AssertionError(error) from error
    assert refused > 300


# R04
@pytest.mark.real_data
def test_a_competitors_mask_is_accepted(tmp_path: Path) -> None:
    source = reference.real_data() / "predictions/1407735_transunet.tif"
    expected = {"1407735": (320, 320, 320)}
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(source, "1407735.tif")
    report = check_submission(path, expected)
    assert report.members[0].shape == (320, 320, 320)
    assert 0.01 < report.members[0].ink_ratio < 0.2
    again = write_submission(path, [("1407735", tifffile.imread(source))], expected=expected)
    assert again.members[0].ink_ratio == report.members[0].ink_ratio
    assert again.n_bytes < source.stat().st_size
    half = source.read_bytes()[: source.stat().st_size // 2]
    path.write_bytes(archive({"1407735.tif": half}))
    with pytest.raises(SubmissionError, match=r"1407735\.tif"):
        check_submission(path, expected)
