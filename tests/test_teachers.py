"""Teachers: teacher.json, folders, registry and safetensors, and everything about them that is refused (R18)."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="teachers need torch: pip install 'vesu[distill]'")
pytest.importorskip("monai", reason="needs MONAI: pip install 'vesu[distill]'")

from safetensors.torch import save  # noqa: E402

from teacher_cases import MEMBERS, PATCH, SMALL, small_network, small_teacher  # noqa: E402
from vesu.cli import main  # noqa: E402
from vesu.distill.architectures import ARCHITECTURES, build_network, register_architecture  # noqa: E402
from vesu.distill.packages import MissingPackageError  # noqa: E402
from vesu.distill.teacher import (  # noqa: E402
    InputSpec,
    Normalisation,
    OutputSpec,
    TeacherSpec,
    find_teachers,
    load_teacher,
    surface_logit,
    write_teacher,
)
from vesu.errors import ArgumentError, DataError, FileError, FormatError  # noqa: E402


@pytest.fixture
def spec(tmp_path: Path) -> TeacherSpec:
    return small_teacher(tmp_path / "a")


def changed(folder: Path, **members: Any) -> None:
    """``teacher.json`` with members put in ("a.b" for inner ones) or, with ``...``, taken out."""
    path = folder / "teacher.json"
    document = json.loads(path.read_text())
    for name, value in members.items():
        *outer, last = name.split("__")
        place = document
        for each in outer:
            place = place[each]
        place.pop(last) if value is ... else place.__setitem__(last, value)
    path.write_text(json.dumps(document))


def windows(n: int = 2, size: tuple[int, int, int] = PATCH) -> Any:
    return torch.randn(n, 1, *size, generator=torch.Generator().manual_seed(1))


# ---- teacher.json ----


def test_a_specification_is_read_back_as_it_was_written(tmp_path: Path) -> None:  # R18
    given = {
        "input": InputSpec((8, 16, 24), True, "last", "uint16"),
        "normalisation": Normalisation("zscore", clip=(1.0, 9.5), mean=3.25, std=2.0),
        "output": OutputSpec(2, 0, "probabilities"),
    }
    spec = small_teacher(tmp_path / "b", **given)
    assert TeacherSpec.load(tmp_path / "b") == spec
    assert spec.patch == (8, 16, 24) and spec.fixed_patch
    document = json.loads((tmp_path / "b" / "teacher.json").read_text())
    assert document["format"] == "vesu-teacher/1" and document["licence"] == "CC0-1.0"
    assert document["normalisation"] == {
        "kind": "zscore",
        "scope": "volume",
        "clip": [1.0, 9.5],
        "mean": 3.25,
        "std": 2.0,
    }


@pytest.mark.parametrize(
    ("member", "value", "told"),
    [
        ("format", "vesu-teacher/2", "format: got 'vesu-teacher/2'"),
        ("digest", ..., "digest: missing"),
        ("colour", "red", "colour: unknown"),
        ("input__patch", [16, 16], "input.patch: got"),
        ("input__patch", [16, 16, 16.0], "input.patch: got"),
        ("input__order", "zyx", "input.order: unknown"),
        ("input__dtype", ..., "input.dtype: missing"),
        ("name", "../up", "name: got '../up'"),
        ("weights", "../model.safetensors", "weights: got"),
        ("weights", "model.onnx", "weights: got 'model.onnx'"),
        ("digest", "md5:00", "digest: got 'md5:00'"),
        ("framework", "pickle", "framework: got 'pickle'"),
        ("normalisation__kind", "minmax", "normalisation.kind: got 'minmax'"),
        ("normalisation__divisor", 2.0, "normalisation.divisor: got 2.0"),
        ("normalisation__mean", 2.0, "normalisation.std: got None"),
        ("output__ignored_class", 1, "output.ignored_class: got 1"),
        ("output__surface_class", 3, "output.surface_class: got 3"),
        ("output__semantics", "votes", "output.semantics: got 'votes'"),
        ("licence", " ", "licence: got ' '"),
        ("architecture", None, "architecture: got NoneType"),
        ("architecture__kwargs", [], "architecture.kwargs: got"),
    ],
)
def test_members_are_refused_by_name(spec: TeacherSpec, member: str, value: Any, told: str) -> None:  # R18
    assert spec.folder is not None
    changed(spec.folder, **{member: value})
    with pytest.raises(FormatError) as caught:
        TeacherSpec.load(spec.folder)
    assert told in str(caught.value) and "teacher.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1, "a": 2}', '{"format": NaN}', "[" * 100_000, "\xff"])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "teacher.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match=r"teacher\.json"):
        TeacherSpec.load(tmp_path)


# ---- normalisation and output ----


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_z_score_is_the_definition(tmp_path: Path, dtype: Any) -> None:  # R18
    volume = np.random.default_rng(0).integers(0, 200, (9, 10, 11)).astype(dtype)
    spec = small_teacher(tmp_path / "a", input=InputSpec(PATCH, dtype=np.dtype(dtype).name))
    prepared = load_teacher(spec).prepare(volume)
    assert prepared.dtype == np.float32
    wide = volume.astype(np.float64)
    np.testing.assert_allclose(prepared, (wide - wide.mean()) / wide.std(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("nonzero", [False, True])
@pytest.mark.parametrize("scope", ["volume", "patch"])
def test_z_score_is_monais(tmp_path: Path, nonzero: bool, scope: Any) -> None:  # R18
    from monai.transforms import NormalizeIntensity

    from vesu.distill.normalisation import normalise_volume, normalise_windows

    volume = np.random.default_rng(1).integers(0, 90, PATCH, np.uint8)
    volume[:5] = 0
    wanted = NormalizeIntensity(nonzero=nonzero)(volume.astype(np.float32))
    how = Normalisation("zscore", scope, nonzero=nonzero)
    prepared = normalise_volume(volume, how)
    seen = normalise_windows(torch.from_numpy(prepared)[None, None], how)[0, 0]
    np.testing.assert_allclose(seen, wanted, atol=3e-6)
    assert (scope == "volume") == bool(np.array_equal(prepared, seen))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Normalisation("scale", divisor=255.0), lambda v: v / 255),
        (Normalisation("scale", offset=10.0, divisor=4.0, clip=(20.0, 90.0)), lambda v: (v.clip(20, 90) - 10) / 4),
        (Normalisation("zscore", mean=100.0, std=20.0, clip=(50.0, 150.0)), lambda v: (v.clip(50, 150) - 100) / 20),
        (Normalisation("none"), lambda v: v),
        (Normalisation("zscore", "patch"), lambda v: v),
    ],
)
def test_other_normalisations(how: Normalisation, expected: Any) -> None:  # R18
    from vesu.distill.normalisation import normalise_volume

    volume = np.random.default_rng(2).integers(0, 256, (4, 5, 6), np.uint8)
    np.testing.assert_allclose(normalise_volume(volume, how), expected(volume.astype(np.float64)), rtol=1e-6)
    twin = normalise_volume(volume.astype(np.uint16) * 257, how, "uint8")  # as 16 bits: the teacher sees the same
    np.testing.assert_allclose(twin, normalise_volume(volume, how), rtol=1e-6)


def test_a_constant_volume_stays_finite_and_nan_is_refused(spec: TeacherSpec) -> None:
    teacher = load_teacher(spec)
    assert not teacher.prepare(np.full((4, 4, 4), 7, np.uint8)).any()
    bad = np.zeros((4, 4, 4), np.float32)
    bad[1, 2, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        teacher.prepare(bad)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.float64), np.zeros((0, 4, 4), np.uint8)):
        with pytest.raises(ArgumentError, match="volume: got"):
            teacher.prepare(wrong)


def test_the_logit_leaves_the_untrained_class_out() -> None:  # R18
    answer = torch.randn(2, 4, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = surface_logit(answer, OutputSpec(4, 1, "logits", ignored_class=3))
    e = answer.exp()
    share = e[:, 1] / (e[:, 0] + e[:, 1] + e[:, 2])  # of the trained classes
    torch.testing.assert_close(found[:, 0].sigmoid(), share)
    soft = surface_logit(answer.softmax(1), OutputSpec(4, 1, "probabilities", ignored_class=3))
    torch.testing.assert_close(soft, found)
    one = surface_logit(answer[:, :1], OutputSpec(1, 0, "logits"))
    assert torch.equal(one, answer[:, :1])
    torch.testing.assert_close(surface_logit(one.sigmoid(), OutputSpec(1, 0, "probabilities")), one)
    certain = surface_logit(torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1, 1), OutputSpec(2, 1, "probabilities"))
    assert certain.item() == pytest.approx(math.log(1e7), rel=1e-5)


# ---- registry and safetensors ----


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_architecture_answers_as_its_network(tmp_path: Path, name: str) -> None:  # R18
    if name == "ResidualEncoderUNet":
        pytest.importorskip("dynamic_network_architectures", reason="needs it: pip install 'vesu[teachers]'")
    network = small_network(name, seed=3)
    spec = small_teacher(tmp_path / "a", network, architecture=name)
    with load_teacher(spec) as teacher:
        seen = windows()
        found = teacher.logits(seen)
        with torch.no_grad():
            answer = network(seen)
    assert found.shape == seen.shape and found.dtype == torch.float32 and not found.requires_grad
    assert torch.equal(found, answer[:, 1:2] - answer[:, :1]) and found.std() > 0
    assert teacher.n_parameters == sum(parameter.numel() for parameter in network.parameters())


def test_the_registry_holds_what_it_says_and_takes_more(tmp_path: Path) -> None:  # R18
    assert set(SMALL) <= set(ARCHITECTURES)
    with pytest.raises(ArgumentError, match="in use"):
        register_architecture("UNet", lambda n_classes: None)
    register_architecture("linear", lambda n_classes, bias: torch.nn.Conv3d(1, n_classes, 1, bias=bias))
    try:
        network = build_network("linear", 3, {"bias": True})
        spec = write_teacher(
            tmp_path,
            network.state_dict(),
            name="l",
            architecture={"name": "linear", "kwargs": {"bias": True}},
            **MEMBERS,
        )
        assert load_teacher(spec).n_parameters == 6
    finally:
        del ARCHITECTURES["linear"]
    with pytest.raises(ArgumentError, match="got 'linear'; accepted: DynUNet"):
        load_teacher(spec)


@pytest.mark.parametrize(
    ("name", "kwargs", "told"),
    [
        ("UNet", {"channels": [4, 8]}, "UNet: kwargs"),
        ("UNet", {"channels": [4, 8], "strides": [2], "colour": 1}, "'colour'"),
        ("UNet", {"channels": [4, 8], "strides": [2], "in_channels": 2}, "'in_channels'"),
        ("UNet", {"channels": [4, 10**9], "strides": [2]}, "numbers up to 4096"),
        ("UNet", {"channels": [4, 8], "strides": [2], "act": open}, "kwargs.act: got"),
        ("ResidualEncoderUNet", SMALL["ResidualEncoderUNet"] | {"conv_op": "Conv2d"}, "'conv_op'"),
        ("DynUNet", SMALL["DynUNet"] | {"strides": [1, 2]}, "DynUNet: kwargs"),
        ("NoSuchNet", {}, "got 'NoSuchNet'"),
    ],
)
def test_arguments_of_networks_are_checked(name: str, kwargs: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        build_network(name, 3, kwargs)
    assert told in str(caught.value)


def damaged(spec: TeacherSpec, change: Any) -> None:
    """The same teacher with other tensors, and their digest in teacher.json: only the weights are wrong."""
    assert spec.folder is not None
    tensors = small_network().state_dict()
    change(tensors)
    write_teacher(spec.folder, save(tensors), **{n: getattr(spec, n) for n in ("name", "architecture", *MEMBERS)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.popitem(), "lacks model.2"),
        (lambda t: t.update(extra=torch.zeros(2)), "the architecture has no extra"),
        (lambda t: t.update({"model.2.0.conv.weight": torch.zeros(5, 3, 3, 3, 3)}), "(5, 3, 3, 3, 3), not"),
        (lambda t: next(iter(t.values())).view(-1)[:1].fill_(float("nan")), "NaN or infinite weights in model.0"),
        (lambda t: next(iter(t.values())).view(-1)[:1].fill_(float("-inf")), "NaN or infinite weights in model.0"),
        (lambda t: t.update({n: v.to(torch.int32) for n, v in list(t.items())[:1]}), "torch.int32, not torch.float32"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(spec: TeacherSpec, change: Any, told: str) -> None:  # R18
    damaged(spec, lambda tensors: None)
    load_teacher(TeacherSpec.load(str(spec.folder))).close()
    damaged(spec, change)
    with pytest.raises(FormatError) as caught:
        load_teacher(TeacherSpec.load(str(spec.folder)))
    assert told in str(caught.value) and "model.safetensors" in str(caught.value)


def test_tied_tensors_may_be_in_the_file_twice_and_must_agree(tmp_path: Path) -> None:
    network = small_network("DynUNet")
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}  # every name, as nnU-Net saves
    spec = small_teacher(tmp_path / "a", network, architecture="DynUNet")
    assert len(spec.weights_path.read_bytes()) < len(save(state)) / 1.5
    members = {n: getattr(spec, n) for n in ("name", "architecture", *MEMBERS)}
    seen = windows(1)
    found = [load_teacher(s).logits(seen) for s in (spec, write_teacher(tmp_path / "b", save(state), **members))]
    assert torch.equal(*found)
    state["input_block.conv1.conv.weight"][0] += 1
    with pytest.raises(FormatError, match="one tensor in the architecture and differ in the file"):
        load_teacher(write_teacher(tmp_path / "b", save(state), **members))


def test_the_digest_is_pinned(spec: TeacherSpec) -> None:  # R18
    path = spec.weights_path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # one bit of one weight
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"its digest is blake3:\w+, but teacher.json says blake3:"):
        load_teacher(spec)
    load_teacher(spec, verify=False).close()


def test_a_sha256_digest_is_a_digest_too(spec: TeacherSpec) -> None:
    import hashlib

    assert spec.folder is not None
    changed(spec.folder, digest="sha256:" + hashlib.sha256(spec.weights_path.read_bytes()).hexdigest())
    load_teacher(TeacherSpec.load(spec.folder)).close()
    changed(spec.folder, digest="sha256:" + "0" * 64)
    with pytest.raises(FormatError, match="its digest is sha256:"):
        load_teacher(TeacherSpec.load(spec.folder))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x80\x02}q\x00.", "pickled checkpoint.*vesu teacher convert"),
        (b"", "empty file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "looks like hdf5"),
        (b"nonsense", "looks like unknown"),
        ((64).to_bytes(8, "little") + b"{" + bytes(80), "not a safetensors file"),
    ],
)
def test_other_files_are_refused_by_their_content(spec: TeacherSpec, content: bytes, told: str) -> None:  # R18
    spec.weights_path.write_bytes(content)
    with pytest.raises(FormatError, match=told):
        load_teacher(spec, verify=False)


def test_calls_that_cannot_be_answered(spec: TeacherSpec, tmp_path: Path) -> None:
    teacher = load_teacher(spec)
    for wrong in (torch.zeros(1, 2, *PATCH), torch.zeros(0, 1, *PATCH), torch.zeros(1, 1, *PATCH).double()):
        with pytest.raises(ArgumentError, match="windows: got"):
            teacher.logits(wrong)
    fixed = load_teacher(small_teacher(tmp_path / "f", input=InputSpec(PATCH, fixed_patch=True)))
    with pytest.raises(ArgumentError, match=r"accepted: \(b, 1, \(16, 16, 16\)\)"):
        fixed.logits(windows(1, (16, 16, 32)))
    assert teacher.logits(windows(1, (16, 16, 32))).shape == (1, 1, 16, 16, 32)
    with pytest.raises(DataError, match="NaN"):
        teacher.logits(torch.full((1, 1, *PATCH), float("nan")))
    teacher.close()
    with pytest.raises(ArgumentError, match="after close"):
        teacher.logits(windows())
    for device in ("tpu", "meta", 7.5):
        with pytest.raises(ArgumentError, match="device: got"):
            load_teacher(spec, device=device)  # type: ignore[arg-type]
    spec.weights_path.unlink()
    with pytest.raises(FileError, match=r"model\.safetensors"):
        load_teacher(spec)


def test_the_same_question_has_the_same_bits(spec: TeacherSpec) -> None:
    teacher, seen, before = load_teacher(spec), windows(3), torch.get_num_threads()
    one = teacher.logits(seen)
    assert torch.equal(load_teacher(spec).logits(seen), one)
    try:  # torch's convolutions round by threads (1x1x1) and by the batch, and by nothing more
        torch.set_num_threads(before + 1)
        torch.testing.assert_close(teacher.logits(seen), one, rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(teacher.logits(seen[1:2]), one[1:2], rtol=1e-4, atol=1e-5)


# ---- folders ----


def test_folders_are_searched_and_refusals_have_reasons(tmp_path: Path) -> None:  # R18
    network = small_network()
    for name in ("b", "a"):
        small_teacher(tmp_path / "deep" / name, small_network(seed=ord(name)))
    small_teacher(tmp_path / "z", small_network(seed=9), name="a")  # a second one of that name
    small_teacher(tmp_path / "y", small_network(seed=ord("b")), name="other")  # the weights of b
    broken, gone = small_teacher(tmp_path / "broken", network), small_teacher(tmp_path / "gone", network)
    (broken.weights_path.parent / "teacher.json").write_text("{}")
    gone.weights_path.unlink()
    (tmp_path / "stray.weights.h5").write_bytes(b"x")
    (tmp_path / "deep" / "a" / "notes.txt").write_text("?")
    (tmp_path / "deep" / "a" / "README.md").write_text("!")
    (tmp_path / "unrelated.txt").write_text(".")
    found = find_teachers(tmp_path)
    assert [spec.name for spec in found.teachers] == ["a", "b"]
    reasons = {str(path.relative_to(tmp_path)): reason for path, reason in found.refused}
    assert reasons.keys() == {"z", "y", "broken", "gone", "stray.weights.h5"}
    assert "same name as" in reasons["z"] and "same digest as" in reasons["y"]
    assert "format: missing" in reasons["broken"] and "missing" in reasons["gone"]
    assert "vesu teacher convert" in reasons["stray.weights.h5"]
    assert [path.name for path in found.extra] == ["notes.txt"]
    assert found.to_json()["teachers"][1]["digest"] == found.teachers[1].digest
    assert find_teachers(tmp_path / "deep" / "a").teachers[0] == found.teachers[0]


def test_links_and_depth_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = small_teacher(tmp_path / "outside" / "o")
    inside = tmp_path / "inside"
    spec = small_teacher(inside / "t", name="t")
    spec.weights_path.unlink()
    spec.weights_path.symlink_to(outside.weights_path)
    (inside / "way-out").symlink_to(tmp_path / "outside")
    (inside / "round").symlink_to(inside)
    small_teacher(inside / "1" / "2" / "3" / "4" / "5", name="deep")
    found = find_teachers(inside)
    assert found.teachers == ()
    assert {path.name: "out of the folder" in reason for path, reason in found.refused} == {"t": True, "way-out": True}
    with pytest.raises(FileError):
        find_teachers(tmp_path / "nowhere")
    monkeypatch.setattr("vesu.distill.teacher_folder.MAX_ENTRIES", 3)
    with pytest.raises(DataError, match="more than 3 files"):
        find_teachers(inside)


def test_writing_refuses_what_it_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="licence: missing"):
        write_teacher(tmp_path, {}, **{n: v for n, v in MEMBERS.items() if n != "licence"}, name="a", architecture={})
    with pytest.raises(ArgumentError, match="colour: unknown"):
        write_teacher(tmp_path, {}, **MEMBERS, name="a", colour="red")
    with pytest.raises(ArgumentError, match="framework: got 'tf'"):
        write_teacher(tmp_path, b"", **MEMBERS, name="a", framework="tf")
    assert not list(tmp_path.iterdir())


# ---- command line and imports ----


def test_commands_list_and_check(spec: TeacherSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teacher", "list", str(tmp_path)]) == 0
    assert "teacher  a: safetensors, UNet, windows of 16x16x16, CC0-1.0" in capsys.readouterr().out
    assert main(["teacher", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "ok       a: " in out and "parameters on cpu" in out and "1 teachers can be used" in out
    spec.weights_path.write_bytes(spec.weights_path.read_bytes()[:-4])
    assert main(["teacher", "check", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "failed   a: " in captured.out and "digest" in captured.out and "DataError" in captured.err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["teacher", "list", str(empty)]) == 0 and main(["teacher", "check", str(empty)]) == 2
    for words in (["teacher"], *(["teacher", name] for name in ("list", "check", "convert"))):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0


def test_reading_specifications_needs_no_torch() -> None:
    program = (
        "import sys, vesu.distill, vesu.distill.teacher, vesu.distill.teacher_commands, vesu.distill.architectures;"
        "print([name for name in ('torch', 'monai', 'onnx', 'onnxruntime', 'keras', 'h5py') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_missing_package_is_told_with_its_command(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vesu\[distill\]'"):
        load_teacher(spec)
