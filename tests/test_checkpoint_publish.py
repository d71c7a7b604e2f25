"""Copies of checkpoints: the versioned folder, the Kaggle model, the thread that nobody waits for (R36)."""

import errno
import inspect
import sys
import threading
from pathlib import Path

import pytest

from checkpoint_fields import Events, fields, parts
from fake_kagglehub import SIGNATURES, FakeKagglehub, KaggleApiHTTPError, Response
from vesu.data import storage
from vesu.errors import ArgumentError, FileError, FormatError
from vesu.run.checkpoint import (
    MANIFEST,
    Checkpoint,
    CheckpointStore,
    FolderPublisher,
    KaggleModelPublisher,
    Publisher,
    load_checkpoint,
    publisher_from,
)

HANDLE = "me/vesu/other/checkpoints"
WAIT_S = 30.0
"""No test waits so long, unless something hangs."""


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKagglehub:
    fake = FakeKagglehub(tmp_path / "kaggle")
    monkeypatch.setitem(sys.modules, "kagglehub", fake)  # type: ignore[arg-type]
    return fake


@pytest.fixture(params=["folder", "kaggle"])
def publisher(request: pytest.FixtureRequest, tmp_path: Path, hub: FakeKagglehub, events: Events) -> Publisher:
    if request.param == "folder":
        return FolderPublisher(tmp_path / "versions", emit=events)
    return KaggleModelPublisher(HANDLE, emit=events)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def version_folders(publisher: Publisher, hub: FakeKagglehub) -> list[Path]:
    if isinstance(publisher, FolderPublisher):
        return sorted(publisher.folder.iterdir())
    return [hub.folder / HANDLE / str(number) for number in hub.versions(HANDLE)]


@pytest.fixture
def saved(tmp_path: Path) -> list[Checkpoint]:
    store = CheckpointStore(tmp_path / "checkpoints", keep=9)
    return [store.save("full", fields(), parts(500, seed)) for seed in range(3)]


# R36: both twins keep one promise
def test_the_newest_version_comes_back(publisher: Publisher, saved: list[Checkpoint], tmp_path: Path) -> None:
    assert publisher.fetch_latest(tmp_path / "into") is None
    assert not (tmp_path / "into").exists()
    for checkpoint in saved:
        publisher.publish(checkpoint)
    found = publisher.fetch_latest(tmp_path / "into")
    assert found == tmp_path / "into" / "ckpt-00000003"
    fetched = load_checkpoint(found)
    assert fetched.manifest == saved[2].manifest
    assert fetched.read("search.npz") == parts(500, 2)["search.npz"]
    assert publisher.fetch_latest(tmp_path / "into") == found  # again: the same


# R36: damage in the newest version: the one before, and an event
def test_a_damaged_version_is_an_event(
    publisher: Publisher, saved: list[Checkpoint], hub: FakeKagglehub, events: Events, tmp_path: Path
) -> None:
    for checkpoint in saved:
        publisher.publish(checkpoint)
    folders = version_folders(publisher, hub)
    (folders[2] / "search.npz").write_bytes(b"torn")
    assert publisher.fetch_latest(tmp_path / "into") == tmp_path / "into" / "ckpt-00000002"
    assert events.names == ["CHECKPOINT_REFUSED"]
    assert "search.npz" in events.all[0][1]["reason"]
    for folder in folders:
        (folder / MANIFEST).write_bytes(b"{}")
    with pytest.raises(FormatError, match="manifest"):
        publisher.fetch_latest(tmp_path / "other")
    assert len(events.all) == 4


# R37: "no such version" is an answer only where there never was one
def test_a_deleted_older_version_does_not_hide_the_damage(
    hub: FakeKagglehub, saved: list[Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = KaggleModelPublisher(HANDLE)
    for checkpoint in saved:
        publisher.publish(checkpoint)
    (hub.folder / HANDLE / "3" / MANIFEST).write_bytes(b"{}")
    real = hub.model_download

    def deleted(handle: str) -> str:
        if handle.endswith("/2"):
            raise KaggleApiHTTPError("404 Client Error", Response(404))
        return real(handle)

    monkeypatch.setattr(hub, "model_download", deleted)
    with pytest.raises(FormatError, match="manifest"):
        publisher.fetch_latest(tmp_path / "into")


def test_a_source_that_is_damaged_is_not_published(saved: list[Checkpoint], tmp_path: Path) -> None:
    publisher = FolderPublisher(tmp_path / "versions")
    (saved[0].path / "search.npz").write_bytes(b"torn")
    with pytest.raises(FormatError):
        publisher.publish(saved[0])
    assert list(publisher.folder.iterdir()) == []


# R36: versions have numbers, and none is ever written over
def test_versions_are_numbered_and_kept(saved: list[Checkpoint], tmp_path: Path) -> None:
    publisher = FolderPublisher(tmp_path / "versions", keep=2)
    assert [publisher.publish(saved[0]) for _ in range(4)] == [f"version-0000000{number}" for number in (1, 2, 3, 4)]
    assert sorted(path.name for path in publisher.folder.iterdir()) == ["version-00000003", "version-00000004"]
    # Another run takes a number between the look and the rename.
    racing = FolderPublisher(tmp_path / "versions", keep=9)
    racing._versions = lambda: [3]  # type: ignore[method-assign]
    before = (publisher.folder / "version-00000004" / MANIFEST).read_bytes()
    assert racing.publish(saved[1]) == "version-00000005"
    assert (publisher.folder / "version-00000004" / MANIFEST).read_bytes() == before


def test_fetching_never_replaces_another_sound_checkpoint(
    publisher: Publisher, saved: list[Checkpoint], tmp_path: Path
) -> None:
    publisher.publish(saved[0])
    other = CheckpointStore(tmp_path / "into").save("full", fields(epoch=9), parts())
    with pytest.raises(FileError, match="another checkpoint has this number"):
        publisher.fetch_latest(tmp_path / "into")
    assert load_checkpoint(other.path).manifest.epoch == 9
    (other.path / "search.npz").write_bytes(b"torn")  # a damaged one is mended
    found = publisher.fetch_latest(tmp_path / "into")
    assert found is not None and load_checkpoint(found).manifest == saved[0].manifest


# R36: Kaggle gets the checkpoint's files, a note and the licence
def test_what_kaggle_gets(hub: FakeKagglehub, saved: list[Checkpoint]) -> None:
    KaggleModelPublisher(HANDLE, license_name="Apache 2.0").publish(saved[1])
    (version,) = (hub.folder / HANDLE).iterdir()
    assert sorted(path.name for path in version.iterdir()) == [MANIFEST, "cursor.json", "search.npz"]
    assert hub.notes == ["checkpoint 2 (full) of run 0123456789abcdef: epoch 1, iteration 40"]
    assert hub.licenses == ["Apache 2.0"]


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_the_fake_has_the_signatures(name: str) -> None:
    assert str(inspect.signature(getattr(FakeKagglehub(Path()), name))) == SIGNATURES[name]


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_the_real_one_takes_what_the_fake_takes(name: str) -> None:
    kagglehub = pytest.importorskip("kagglehub")
    real = inspect.signature(getattr(kagglehub, name)).parameters
    for parameter in inspect.signature(getattr(FakeKagglehub(Path()), name)).parameters.values():
        assert real[parameter.name].kind == parameter.kind
        assert real[parameter.name].default == parameter.default


def test_other_answers_of_kaggle_are_errors(
    hub: FakeKagglehub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(handle: str) -> str:
        raise KaggleApiHTTPError("403 Client Error", Response(403))

    monkeypatch.setattr(hub, "model_download", forbidden)
    with pytest.raises(KaggleApiHTTPError):
        KaggleModelPublisher(HANDLE).fetch_latest(tmp_path)


def test_kagglehub_is_asked_for_only_when_used(
    tmp_path: Path, saved: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # as if not installed
    publisher = KaggleModelPublisher(HANDLE)
    for use in (lambda: publisher.publish(saved[0]), lambda: publisher.fetch_latest(tmp_path)):
        with pytest.raises(ArgumentError, match="kagglehub is installed"):
            use()


@pytest.mark.parametrize("handle", ["", "a/b/c", f"{HANDLE}/3", "a/b//c", "a/b/c/d e", None, 3])
def test_handles_are_checked(handle: str) -> None:
    with pytest.raises(ArgumentError, match="handle: got"):
        KaggleModelPublisher(handle)


def test_publishers_from_text(tmp_path: Path) -> None:
    assert publisher_from("") is None
    folder = publisher_from(str(tmp_path / "x"), keep=5)
    assert isinstance(folder, FolderPublisher) and (folder.folder, folder.keep) == (tmp_path / "x", 5)
    kaggle = publisher_from(f"kaggle:{HANDLE}")
    assert isinstance(kaggle, KaggleModelPublisher) and kaggle.handle == HANDLE
    for bad in (0, True, 1.5):
        with pytest.raises(ArgumentError, match="keep: got"):
            publisher_from(str(tmp_path), keep=bad)  # type: ignore[arg-type]


# R36: light ones stay here, the others go out, and each is an event
def test_the_store_publishes(publisher: Publisher, hub: FakeKagglehub, events: Events, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", emit=events, publishers=[publisher])
    for kind in ("light", "full", "pretimeout", "light"):
        store.save(kind, fields(), parts())  # type: ignore[arg-type]
        assert store.drain(WAIT_S)
    published = events.of("CHECKPOINT_PUBLISHED")
    assert [(each["sequence"], each["kind"], each["publisher"]) for each in published] == [
        (2, "full", publisher.name),
        (3, "pretimeout", publisher.name),
    ]
    assert len(version_folders(publisher, hub)) == 2


class Failing:
    name = "failing"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def publish(self, checkpoint: Checkpoint) -> str:
        raise self.error

    def fetch_latest(self, into: Path) -> Path | None:
        raise self.error


# R36: a publisher that fails never ends the run, nor keeps the next one from its copy
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space"), ValueError("x"), RuntimeError("network"), FormatError("y")]
)
def test_a_publisher_that_fails_is_an_event(events: Events, tmp_path: Path, error: Exception) -> None:
    publishers = [Failing(error), FolderPublisher(tmp_path / "versions")]
    store = CheckpointStore(tmp_path / "checkpoints", emit=events, publishers=publishers)
    for _ in range(2):
        store.save("full", fields(), parts())
        assert store.drain(WAIT_S)
    failed = events.of("CHECKPOINT_PUBLISH_FAILED")
    assert [each["sequence"] for each in failed] == [1, 2]
    assert failed[0]["publisher"] == "failing" and type(error).__name__ in failed[0]["reason"]
    assert len(events.of("CHECKPOINT_PUBLISHED")) == 2
    assert len(list((tmp_path / "versions").iterdir())) == 2


class Slow:
    """A network that hangs until it is let go."""

    name = "slow"

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.seen: list[int] = []

    def publish(self, checkpoint: Checkpoint) -> str:
        self.began.set()
        assert self.go_on.wait(WAIT_S)
        self.seen.append(load_checkpoint(checkpoint.path).manifest.sequence)
        return "1"

    def fetch_latest(self, into: Path) -> Path | None:
        return None


# R36: the search does not wait, rotation leaves what is being published, and the newest waiting one wins
def test_a_publisher_that_hangs_stops_nobody(events: Events, tmp_path: Path) -> None:
    slow = Slow()
    store = CheckpointStore(tmp_path, keep=1, emit=events, publishers=[slow])
    store.save("full", fields(), parts())
    assert slow.began.wait(WAIT_S)
    for _ in range(3):
        store.save("full", fields(), parts())
    assert not store.drain(0.01)
    # 1 is being published, 3 was to be next until 4 came.
    assert listing(tmp_path) == ["ckpt-00000001", "ckpt-00000003", "ckpt-00000004"]
    slow.go_on.set()
    assert store.drain(WAIT_S)
    assert slow.seen == [1, 4]
    assert [each["sequence"] for each in events.of("CHECKPOINT_PUBLISH_SUPERSEDED")] == [2, 3]
    store.save("light", fields(), parts())
    assert listing(tmp_path) == ["ckpt-00000004", "ckpt-00000005"]


def test_a_closed_log_does_not_end_the_publishing(tmp_path: Path) -> None:
    def closed(name: str, /, **_: object) -> None:
        if "PUBLISH" in name:
            raise RuntimeError("the log is closed")

    publisher = FolderPublisher(tmp_path / "versions")
    store = CheckpointStore(tmp_path / "checkpoints", emit=closed, publishers=[publisher])
    for _ in range(2):
        store.save("full", fields(), parts())
        assert store.drain(WAIT_S)
    assert len(list(publisher.folder.iterdir())) == 2


# R36: killed at the rename, a version is there whole or not at all
def test_a_version_is_whole_or_not_there(
    saved: list[Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = FolderPublisher(tmp_path / "versions")

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(storage.os, "fsync", refused)
    with pytest.raises(FileError):
        publisher.publish(saved[0])
    monkeypatch.undo()
    assert list(publisher.folder.glob("version-*")) == []
