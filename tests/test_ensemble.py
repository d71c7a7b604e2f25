"""The ensemble of teachers: its labels, its events, what is kept and gone on from, faults."""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from vesu.config.learned import TeacherConfig
from vesu.data.cache import ArrayCache, content_id
from vesu.distill.soft_labels import fold_logits, to_half
from vesu.errors import ArgumentError, DataError, FileError, FormatError, MemoryLimitError

torch = pytest.importorskip("torch", reason="teachers need torch: pip install 'vesu[distill]'")
pytest.importorskip("monai", reason="pip install 'vesu[distill]'")

from vesu.distill.ensemble import TeacherError, teacher_ensemble_infer  # noqa: E402
from vesu.distill.sliding import sliding_logits  # noqa: E402

CONFIG = TeacherConfig(overlap=0.5, flips=True, batch=4)


class Events(list):
    def __call__(self, name, fields):
        self.append((name, dict(fields)))

    def named(self, name):
        return [fields for found, fields in self if found == name]


class School:
    """Teachers that answer with their weight times the grey value, and a note of all that is done to them."""

    def __init__(self, **weights):
        self.weights = weights
        self.loaded, self.windows, self.alive, self.most_alive = [], [], 0, 0
        self.fault = None

    def spec(self, name, **changes):
        fields = {"name": name, "digest": f"blake3:{name * 64}", "framework": "safetensors", "patch": [8, 8, 8]}
        fields |= {"licence": "CC0-1.0", "normalisation": {"kind": "none"}} | changes
        return SimpleNamespace(**fields | {"patch": tuple(fields["patch"])}, to_json=lambda: fields)

    @property
    def specs(self):
        return [self.spec(name) for name in self.weights]

    def load(self, spec, device):
        self.loaded.append(spec.name)
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)

        def logits(windows):
            self.windows.append((spec.name, len(windows)))
            if self.fault is not None:
                self.fault(spec.name, len(self.windows))
            return windows * self.weights[spec.name]

        def close():
            self.alive -= 1

        return SimpleNamespace(prepare=prepare, logits=logits, close=close, n_parameters=11)


def prepare(volume):
    return volume.astype(np.float32) / 64 - 2


def volumes(n=2, shape=(10, 9, 12)):
    generator = np.random.default_rng(0)
    return {f"v{i}": generator.integers(0, 256, shape, np.uint8) for i in range(n)}


def cache_in(folder, **settings):
    return ArrayCache(folder, **{"max_bytes": 10**8} | settings)


def infer(school, given, cache, **settings):
    settings = {"config": CONFIG, "load": school.load} | settings
    return teacher_ensemble_infer(settings.pop("specs", school.specs), given, cache=cache, **settings)


def bits(labels):
    return {
        name: (soft.teachers, soft.mean_logit.tobytes(), soft.variance.tobytes(), soft.disagreement.tobytes())
        for name, soft in labels.items()
    }


# ---- the whole way ----


def test_soft_labels_are_the_fold_of_what_each_teacher_says(tmp_path):  # R18
    school = School(a=1.0, b=-0.5, c=3.0)
    given = volumes()
    labels = infer(school, given, cache_in(tmp_path))
    assert list(labels) == ["v0", "v1"]
    for volume_id, volume in given.items():
        prepared = volume.astype(np.float32) / 64 - 2
        logits = [
            to_half(sliding_logits(lambda w, k=k: w * k, prepared, patch=(8, 8, 8))[0]) for k in school.weights.values()
        ]
        soft = labels[volume_id]
        assert soft.volume_id == volume_id and soft.teachers == ("a", "b", "c")
        for name, values in fold_logits(logits).items():
            assert getattr(soft, name).tobytes() == values.tobytes(), name
        assert soft.confidence.min() < 0.9 < soft.confidence.max()
    assert school.loaded == ["a", "b", "c"]
    assert (school.most_alive, school.alive) == (1, 0)  # one teacher in memory at a time


def test_one_teacher_is_an_ensemble(tmp_path):  # fewer than nine are allowed
    (soft,) = infer(School(a=1.0), volumes(1), cache_in(tmp_path)).values()
    assert (soft.confidence == 1).all() and not soft.variance.any() and soft.mean_logit.std() > 0.1


def test_a_teacher_in_a_folder_is_asked(tmp_path):  # R18: the real loader, a real network, its normalisation
    from vesu.distill.architectures import build_network
    from vesu.distill.teacher import InputSpec, Normalisation, OutputSpec, load_teacher, write_teacher

    torch.manual_seed(0)
    architecture = {"name": "UNet", "kwargs": {"channels": [4, 8], "strides": [2]}}
    weights = build_network("UNet", 2, architecture["kwargs"]).state_dict()
    fields = {"architecture": architecture, "input": InputSpec((8, 8, 8)), "normalisation": Normalisation("zscore")}
    fields |= {"output": OutputSpec(2), "licence": "CC0-1.0", "source": "made here"}
    spec = write_teacher(tmp_path / "unet", weights, name="unet", **fields)
    given, events = volumes(1), Events()
    (soft,) = teacher_ensemble_infer(
        [spec], given, cache=cache_in(tmp_path / "cache"), config=CONFIG, emit=events
    ).values()
    with load_teacher(spec) as teacher:
        wanted = sliding_logits(teacher.logits, teacher.prepare(given["v0"]), patch=(8, 8, 8), batch=4)[0]
    np.testing.assert_array_equal(soft.mean_logit, to_half(wanted))
    (loaded,) = events.named("DISTILLATION_TEACHER_LOAD_END")
    assert loaded["digest"] == spec.digest and loaded["parameters"] == sum(w.numel() for w in weights.values())


def test_events_tell_what_is_done_in_its_order(tmp_path):  # R22, R23
    school, events = School(a=1.0, b=2.0), Events()
    given = volumes()
    school.fault = lambda name, n: events("ASKED", {})  # where the work really is
    infer(school, given, cache_in(tmp_path), emit=events)
    work = ["DISTILLATION_BATCH_BEGIN", *["ASKED"] * 16, "DISTILLATION_BATCH_END", "TEACHER_BATCH_TRANSFER"]
    teacher = ["DISTILLATION_TEACHER_LOAD_BEGIN", "DISTILLATION_TEACHER_LOAD_END", *work, *work]
    folded = ["SOFT_LABELS_FOLDED", "SOFT_LABELS_FOLDED"]
    assert [name for name, _ in events] == ["SOFT_LABELS_PLANNED", *teacher, *teacher, *folded]
    n_bytes = sum(volume.size for volume in given.values()) * 2 * (2 + 3)  # two answers and three arrays of labels
    planned = {"teachers": ["a", "b"], "volumes": 2, "folded_in_cache": 0, "bytes": n_bytes}
    assert events[0] == ("SOFT_LABELS_PLANNED", planned)

    first = {"teacher": "a", "digest": f"blake3:{'a' * 64}"}
    begin, end = events.named("DISTILLATION_BATCH_BEGIN")[0], events.named("DISTILLATION_BATCH_END")[0]
    assert begin == first | {"volume_id": "v0", "windows": 8, "flips": 8, "device": "cpu", "batch": 4}
    assert end["window_passes"] == 64 == sum(n for name, n in school.windows if name == "a") / len(given)
    assert end["seconds"] > 0
    loaded = events.named("DISTILLATION_TEACHER_LOAD_END")
    assert [(e["teacher"], e["parameters"]) for e in loaded] == [("a", 11), ("b", 11)]
    moved = events.named("TEACHER_BATCH_TRANSFER")
    assert [(e["teacher"], e["volume_id"], e["from_cache"]) for e in moved] == [
        (name, volume_id, False) for name in "ab" for volume_id in given
    ]
    assert [e["volume_content"] for e in moved[:2]] == [content_id(volume) for volume in given.values()]


def test_progress_grows_from_nothing_to_all(tmp_path):
    parts = []
    infer(School(a=1.0, b=2.0), volumes(), cache_in(tmp_path), on_part=parts.append)
    assert parts == sorted(parts) and parts[0] == pytest.approx(1 / 64) and parts[-1] == 1.0
    assert len(set(parts)) == 4 * 16  # two teachers, two volumes, sixteen batches each


# ---- going on ----


class Stop(BaseException):
    """As a run is stopped by a signal or the deadline."""


@pytest.mark.parametrize("batches", [1, 20, 33, 50, 64])
def test_a_stopped_ensemble_goes_on_where_it_was_with_the_same_bits(tmp_path, batches):  # R18, R37
    given = volumes()
    whole = bits(infer(School(a=1.0, b=-2.0), given, cache_in(tmp_path / "whole")))
    school = School(a=1.0, b=-2.0)

    def poll():
        if len(school.windows) == batches:
            raise Stop

    with pytest.raises(Stop):
        infer(school, given, cache_in(tmp_path / "cut"), poll=poll)
    assert school.alive == 0  # the teacher was closed on the way out
    again, events = School(a=1.0, b=-2.0), Events()
    assert bits(infer(again, given, cache_in(tmp_path / "cut"), emit=events)) == whole
    done = batches // 16
    assert len(again.windows) == 64 - 16 * done  # what was done is not done again
    transfers = events.named("TEACHER_BATCH_TRANSFER")
    assert [e["from_cache"] for e in transfers] == [True] * done + [False] * (4 - done)
    assert len(events.named("DISTILLATION_BATCH_END")) == 4 - done  # and not said to be


def test_all_from_the_cache(tmp_path):  # R09, R22
    given, school = volumes(), School(a=1.0, b=2.0)
    whole = bits(infer(school, given, cache_in(tmp_path)))
    school.windows.clear(), school.loaded.clear()
    events = Events()
    assert bits(infer(school, given, cache_in(tmp_path), emit=events)) == whole
    assert school.loaded == ["a", "b"] and not school.windows  # loaded, and so verified, but not asked
    assert not events.named("DISTILLATION_BATCH_BEGIN") and not events.named("SOFT_LABELS_FOLDED")
    assert [e["from_cache"] for e in events.named("TEACHER_BATCH_TRANSFER")] == [True] * 4
    school.loaded.clear()
    assert bits(infer(school, given, cache_in(tmp_path), reload_cached=False)) == whole
    assert not school.loaded


def test_labels_are_kept_under_what_they_were_made_from(tmp_path):  # R09
    school, given = School(a=1.0, b=2.0), volumes(1)
    infer(school, given, cache_in(tmp_path))

    def computed(**settings):
        school.windows.clear()
        settings = {"given": given} | settings
        infer(school, settings.pop("given"), cache_in(tmp_path), **settings)
        return {name for name, _ in school.windows}

    a, b = school.specs
    assert not computed(specs=[b, a])  # another order is another fold of the same answers
    assert not computed(specs=[a])  # so is a teacher left out
    assert not computed(given={"renamed": given["v0"]})
    assert not computed(config=TeacherConfig(batch=1))
    assert not computed(specs=[school.spec("a", licence="MIT"), b])
    assert computed(specs=[school.spec("a", normalisation={"kind": "zscore"}), b]) == {"a"}
    assert computed(specs=[school.spec("a", digest="blake3:" + "9" * 64), b]) == {"a"}
    assert computed(specs=[school.spec("a", patch=[8, 8, 9]), b]) == {"a"}
    assert computed(config=TeacherConfig(flips=False)) == {"a", "b"}
    assert computed(config=TeacherConfig(overlap=0.25)) == {"a", "b"}
    changed = given["v0"].copy()
    changed[0, 0, 0] ^= 1
    assert computed(given={"v0": changed}) == {"a", "b"}


def test_the_order_of_teachers_is_kept(tmp_path):
    school, given = School(a=1.0, b=2.0), volumes(1)
    forth = infer(school, given, cache_in(tmp_path))["v0"]
    back = infer(school, given, cache_in(tmp_path), specs=school.specs[::-1])["v0"]
    assert forth.teachers == ("a", "b") and back.teachers == ("b", "a")
    np.testing.assert_allclose(forth.mean_logit, back.mean_logit, rtol=1e-3)


def test_answers_are_folded_in_the_teachers_order_wherever_they_come_from(tmp_path, monkeypatch):
    given, folds = volumes(1), []

    def spy(logits):
        folds.append([array.tobytes() for array in logits])
        return fold_logits(logits)

    monkeypatch.setattr("vesu.distill.ensemble.fold_logits", spy)
    infer(School(b=2.0), given, cache_in(tmp_path))  # one of them is there already
    infer(School(a=1.0, b=2.0, c=3.0), given, cache_in(tmp_path))
    infer(School(a=1.0, b=2.0, c=3.0), given, cache_in(tmp_path / "fresh"))
    assert folds[0] == folds[1][1:2] and len(set(folds[1])) == 3
    assert folds[1] == folds[2]


def test_a_damaged_answer_is_computed_again(tmp_path):  # R09
    school, given = School(a=1.0, b=2.0), volumes(1)
    whole = bits(infer(school, given, cache_in(tmp_path)))
    files = sorted(tmp_path.glob("*/*.npy"))
    assert len(files) == 2 + 3  # two answers, one fold
    for file in files:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    school.windows.clear()
    assert bits(infer(school, given, cache_in(tmp_path))) == whole
    assert {name for name, _ in school.windows} == {"a", "b"}


@pytest.mark.parametrize("max_bytes", [0, 4000])
def test_a_full_cache_changes_nothing_and_is_told(tmp_path, max_bytes):
    school, given, events = School(a=1.0, b=2.0), volumes(), Events()
    whole = bits(infer(school, given, cache_in(tmp_path / "roomy")))
    cache = cache_in(tmp_path / "full", max_bytes=max_bytes)
    assert bits(infer(school, given, cache, emit=events)) == whole
    held = events.named("SOFT_LABELS_HELD_IN_MEMORY")
    assert len(held) == (4 if max_bytes == 0 else 3)
    assert [e["bytes_in_all"] for e in held] == [2160 * (i + 1) for i in range(len(held))]


def test_neither_cache_nor_memory_has_room(tmp_path, monkeypatch):  # before the system ends the process
    monkeypatch.setattr("vesu.distill.ensemble.available_memory_bytes", lambda: 8000)
    school = School(a=1.0)
    with pytest.raises(MemoryLimitError, match=r"cache: .* 2160 bytes of answers are in memory, 8000 are left"):
        infer(school, volumes(), cache_in(tmp_path / "none", max_bytes=0))
    assert school.alive == 0
    infer(school, volumes(), cache_in(tmp_path / "roomy"))  # what is on the disk needs none


def test_kept_labels_are_read_only_maps(tmp_path):
    (soft,) = infer(School(a=1.0), volumes(1), cache_in(tmp_path)).values()
    assert isinstance(soft.mean_logit, np.memmap) and not soft.mean_logit.flags.writeable


def test_one_volume_is_in_memory_at_a_time(tmp_path):
    given, opened = volumes(3), []

    def opener(volume):
        def read():
            assert all(reference() is None for reference in opened)
            copy = volume.copy()
            opened.append(weakref.ref(copy))
            return copy

        return read

    lazy = {volume_id: opener(volume) for volume_id, volume in given.items()}
    labels = infer(School(a=1.0, b=2.0), lazy, cache_in(tmp_path / "lazy"))
    assert bits(labels) == bits(infer(School(a=1.0, b=2.0), given, cache_in(tmp_path / "eager")))
    assert len(opened) == 3 + 2 * 3  # for the content id, and once a teacher


# ---- faults ----


def test_a_teacher_that_fails_in_the_middle_is_named_and_the_work_is_kept(tmp_path):
    school, events = School(a=1.0, b=2.0), Events()

    def fault(name, n):
        if n == 50:
            raise RuntimeError("the kernel is ill")

    school.fault = fault
    with pytest.raises(TeacherError, match="teacher 'b', volume 'v1': the kernel is ill"):
        infer(school, volumes(), cache_in(tmp_path), emit=events)
    assert school.alive == 0
    (failed,) = events.named("DISTILLATION_TEACHER_FAILED")
    assert (failed["teacher"], failed["volume_id"]) == ("b", "v1") and "the kernel is ill" in failed["reason"]
    assert len(events.named("DISTILLATION_BATCH_END")) == 3 == len(events.named("TEACHER_BATCH_TRANSFER"))
    school.fault = None
    school.windows.clear()
    assert bits(infer(school, volumes(), cache_in(tmp_path))) == bits(
        infer(School(a=1.0, b=2.0), volumes(), cache_in(tmp_path / "whole"))
    )
    assert school.windows == [("b", 4)] * 16


def refusing(error):
    def load(spec, device):
        raise error

    return load


@pytest.mark.parametrize("error", [FormatError("digest differs"), FileError(2, "gone", "x"), KeyError("conv")])
def test_a_teacher_that_cannot_be_loaded_is_named(tmp_path, error):
    events = Events()
    with pytest.raises(TeacherError, match="teacher 'a': ") as caught:
        infer(School(a=1.0), volumes(1), cache_in(tmp_path), load=refusing(error), emit=events)
    assert caught.value.__cause__ is error
    assert [name for name, _ in events[1:]] == ["DISTILLATION_TEACHER_LOAD_BEGIN", "DISTILLATION_TEACHER_FAILED"]


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda w: w * torch.nan, "not finite"),
        (lambda w: w.repeat(1, 2, 1, 1, 1), r"answered \(4, 2, 8, 8, 8\)"),
        (lambda w: w[..., 1:], r"answered \(4, 1, 8, 8, 7\)"),
    ],
)
def test_an_answer_that_is_none_is_the_teachers_fault(tmp_path, answer, message):
    def load(spec, device):
        return SimpleNamespace(prepare=lambda v: v.astype(np.float32), logits=answer, close=lambda: None)

    with pytest.raises(TeacherError, match=f"teacher 'a', volume 'v0': .*{message}"):
        infer(School(a=1.0), volumes(1), cache_in(tmp_path), load=load)
    assert not list(tmp_path.glob("*/*.npy"))  # and nothing of it is kept


def test_a_prepared_volume_of_another_size_is_the_teachers_fault(tmp_path):
    def load(spec, device):
        return SimpleNamespace(prepare=lambda v: v[1:].astype(np.float32), logits=lambda w: w, close=lambda: None)

    with pytest.raises(TeacherError, match=r"prepared volume: got \(9, 9, 12\); accepted: \(10, 9, 12\)"):
        infer(School(a=1.0), volumes(1), cache_in(tmp_path), load=load)


def test_memory_that_is_out_makes_smaller_batches_once_a_teacher(tmp_path):  # R27
    school, events = School(a=1.0, b=2.0), Events()

    def fault(name, n):
        if school.windows[-1][1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    school.fault = fault
    labels = infer(school, volumes(), cache_in(tmp_path), emit=events)
    assert bits(labels) == bits(infer(School(a=1.0, b=2.0), volumes(), cache_in(tmp_path / "roomy")))
    assert [e["next"] for e in events.named("OUT_OF_MEMORY_SMALLER_BATCH")] == [2, 2]  # not for every volume
    ends = events.named("DISTILLATION_BATCH_END")
    assert [(e["batch"], e["window_passes"]) for e in ends] == [(2, 64)] * 4

    def never(name, n):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    school.fault = never
    with pytest.raises(MemoryLimitError, match="teacher 'a', volume 'v0': batch: a single item does not fit"):
        infer(school, volumes(), cache_in(tmp_path / "full"))


def test_a_log_that_refuses_is_not_the_teachers_fault(tmp_path):
    def emit(name, fields):
        if name == "OUT_OF_MEMORY_SMALLER_BATCH":
            raise FileError(28, "No space left on device", "events.jsonl")

    school = School(a=1.0)

    def fault(name, n):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    school.fault = fault
    with pytest.raises(FileError, match="No space left"):
        infer(school, volumes(1), cache_in(tmp_path), emit=emit)
    assert school.alive == 0


def test_a_volume_that_changes_under_the_work_is_refused(tmp_path):
    given = iter(volumes(2).values())
    with pytest.raises(DataError, match=r"volumes\['v'\]: gave other voxels than before"):
        infer(School(a=1.0), {"v": lambda: next(given)}, cache_in(tmp_path))


def test_bad_input_is_refused_by_name(tmp_path):
    school, cache = School(a=1.0), cache_in(tmp_path)
    with pytest.raises(ArgumentError, match=r"specs: got teachers \[\]; accepted: one or more"):  # zero: the hard fail
        infer(school, volumes(1), cache, specs=[])
    with pytest.raises(ArgumentError, match=r"specs: got teachers \['a', 'a'\]"):
        infer(school, volumes(1), cache, specs=school.specs * 2)
    with pytest.raises(ArgumentError, match="volumes: got none"):
        infer(school, {}, cache)
    for bad, told in ((np.zeros((3, 3)), r"float64 \(3, 3\)"), (lambda: None, "NoneType")):
        with pytest.raises(ArgumentError, match=rf"volumes\['v'\]: got {told}; accepted: an array \(z, y, x\)"):
            infer(school, {"v": bad}, cache)
    assert not school.loaded
