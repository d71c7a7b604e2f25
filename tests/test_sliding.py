"""Sliding windows: MONAI's answer, a slow NumPy reference, edges, memory, stops, bad input."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesu.distill.device import BatchLimit
from vesu.distill.sliding import n_windows, sliding_logits, tta_flips, window_starts
from vesu.errors import ArgumentError, DataError, MemoryLimitError

torch = pytest.importorskip("torch", reason="the student needs torch: pip install 'vesu[distill]'")
monai_inferers = pytest.importorskip("monai.inferers", reason="pip install 'vesu[distill]'")
monai_data = pytest.importorskip("monai.data.utils")


@pytest.fixture(autouse=True, name="one_thread")
def one_thread_fixture():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def volume_of(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def network(outputs=1, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv3d(4, outputs, 3, padding=1)
    )


def awkward(windows):
    """An answer that knows its place in the window and which way it was shown: nothing cancels by luck."""
    sides = windows.shape[2:]
    place = torch.arange(sides[0] * sides[1] * sides[2], dtype=torch.float32).reshape(sides) / 100
    return torch.cat([windows * place, windows.mean((2, 3, 4), keepdim=True) + torch.sin(place)], 1)


def reference(predict, volume, patch, overlap, flips, n_outputs):
    """All of it in float64, a window and a flip at a time, into sums of the volume's size."""
    missing = [max(0, p - n) for p, n in zip(patch, volume.shape, strict=True)]
    padded = np.pad(volume, [(m // 2, m - m // 2) for m in missing], mode="reflect")
    weights = monai_data.compute_importance_map(patch, mode="gaussian", sigma_scale=0.125).numpy().astype(np.float64)
    steps = [max(1, int(p * (1 - overlap))) for p in patch]
    starts = [
        sorted({min(i, n - p) for i in range(0, n, step)})
        for n, p, step in zip(padded.shape, patch, steps, strict=True)
    ]
    sums, total = np.zeros((n_outputs, *padded.shape)), np.zeros(padded.shape)
    for corner in itertools.product(*starts):
        where = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        for axes in [a for n in range(4 if flips else 1) for a in itertools.combinations(range(3), n)]:
            shown = torch.from_numpy(np.flip(padded[where], axes).copy())[None, None]
            answer = np.flip(predict(shown)[0].detach().numpy().astype(np.float64), [a + 1 for a in axes])
            sums[(slice(None), *where)] += answer * weights
            total[where] += weights
    inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, volume.shape, strict=True))
    return (sums / total)[(slice(None), *inside)]


# ---- the same as the peers ----


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
def test_windows_are_monais(overlap):  # R18
    for size, patch in itertools.product(range(4, 40), (1, 3, 4)):
        step = max(1, int(patch * (1 - overlap)))
        theirs = monai_data.dense_patch_slices((size,), (patch,), (size if size == patch else step,))
        assert window_starts(size, patch, overlap) == tuple(s[0].start for s in theirs)


@pytest.mark.parametrize(
    "shape, patch, overlap", [((24, 24, 24), (16, 16, 16), 0.5), ((20, 33, 17), (8, 16, 12), 0.25)]
)
def test_the_answer_is_monais(shape, patch, overlap):  # R18
    volume, net = volume_of(*shape), network(2)
    inferer = monai_inferers.SlidingWindowInferer(patch, sw_batch_size=3, overlap=overlap, mode="gaussian")
    with torch.inference_mode():
        theirs = inferer(torch.from_numpy(volume)[None, None], net)[0].numpy()
    ours = sliding_logits(net, volume, patch=patch, overlap=overlap, flips=False, batch=3, n_outputs=2)
    assert ours.dtype == np.float32 and ours.flags.c_contiguous
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_flips_are_the_mean_of_flipped_volumes():  # R18: where the windows lie alike in mirror images
    volume, net = volume_of(24, 16, 24), network()
    inferer = monai_inferers.SlidingWindowInferer((16, 16, 16), sw_batch_size=1, overlap=0.5, mode="gaussian")
    answers = []
    with torch.inference_mode():
        for axes in tta_flips():
            shown = torch.from_numpy(np.flip(volume, axes).copy())[None, None]
            answers.append(np.flip(inferer(shown, net)[0, 0].numpy(), axes))
    ours = sliding_logits(net, volume, patch=(16, 16, 16))
    np.testing.assert_allclose(ours[0], np.mean(answers, 0), atol=2e-6)
    plain = sliding_logits(net, volume, patch=(16, 16, 16), flips=False)
    assert np.abs(ours - plain).max() > 1e-3  # the flips do something


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    patch=st.tuples(*[st.integers(1, 9)] * 3),
    overlap=st.sampled_from([0, 0.3, 0.5, 0.75]),
    flips=st.booleans(),
    batch=st.integers(1, 20),
)
def test_the_slow_reference_agrees(shape, patch, overlap, flips, batch):  # R18: edges, paddings, remainders
    volume = volume_of(*shape)
    wanted = reference(awkward, volume, patch, overlap, flips, 2)
    found = sliding_logits(
        awkward, volume, patch=patch, overlap=overlap, flips=flips, batch=batch, n_outputs=2, device="cpu"
    )
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_eight_flips_each_its_own_inverse():
    flips = tta_flips()
    assert len(set(flips)) == 8 and flips[0] == () and tta_flips(False) == ((),)
    shown = {np.flip(volume_of(2, 3, 4), axes).tobytes() for axes in flips}
    assert len(shown) == 8


# ---- the same bits ----


def test_bits_do_not_depend_on_the_batch_or_the_threads():
    volume, net = volume_of(14, 12, 13), network(2)
    settings = {"patch": (8, 8, 8), "n_outputs": 2}
    once = sliding_logits(awkward, volume, batch=1, **settings)
    for batch in (3, 8, 1000):
        assert sliding_logits(awkward, volume, batch=batch, **settings).tobytes() == once.tobytes()
    answers = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        answers.append(sliding_logits(net, volume, batch=8, flips=False, **settings).tobytes())
    assert answers[0] == answers[1]


def test_a_read_only_volume_of_any_stride_is_taken_without_a_word():
    volume = volume_of(16, 14, 12)
    wanted = sliding_logits(awkward, volume, patch=(8, 8, 8), n_outputs=2)
    strange = np.asfortranarray(volume)[:, ::-1][:, ::-1]
    strange.flags.writeable = False
    before = volume.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sliding_logits(awkward, strange, patch=(8, 8, 8), n_outputs=2)
    assert found.tobytes() == wanted.tobytes() and np.array_equal(volume, before)


def test_no_gradient_is_kept():
    grown = []

    def predict(windows):
        grown.append((windows * torch.ones((), requires_grad=True)).requires_grad)
        return windows

    sliding_logits(predict, volume_of(4, 4, 4), patch=(4, 4, 4), flips=False)
    assert grown == [False]


# ---- memory, progress, stops ----


@pytest.mark.parametrize("as_limit", [False, True])
def test_too_large_a_batch_is_halved_where_it_is_and_told(as_limit):  # R27: never a silent CPU
    sizes, events = [], []

    def predict(windows):
        sizes.append(len(windows))
        if len(windows) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 PiB.\nmore")
        return awkward(windows)

    def emit(name, fields):
        events.append((name, dict(fields)))

    volume = volume_of(12, 8, 8)
    limit = BatchLimit(8, emit) if as_limit else 8
    settings = {"patch": (8, 8, 8), "n_outputs": 2}
    found = sliding_logits(predict, volume, batch=limit, emit=emit, **settings)
    assert found.tobytes() == sliding_logits(awkward, volume, batch=8, **settings).tobytes()
    assert sizes == [8, 4] + [2] * 8
    reason = "CUDA out of memory. Tried to allocate 9 PiB."
    assert events == [
        ("OUT_OF_MEMORY_SMALLER_BATCH", {"batch": 8, "next": 4, "reason": reason}),
        ("OUT_OF_MEMORY_SMALLER_BATCH", {"batch": 4, "next": 2, "reason": reason}),
    ]
    if as_limit:  # it remembers, so that the next volume does not try again
        sizes.clear()
        sliding_logits(predict, volume, batch=limit, **settings)
        assert sizes == [2] * 8


def test_a_window_that_does_not_fit_is_an_error():  # R27
    def predict(windows):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryLimitError, match="a single item does not fit into the memory: CUDA out of memory"):
        sliding_logits(predict, volume_of(8, 8, 8), patch=(8, 8, 8), batch=4)


def test_sums_that_do_not_fit_are_an_error(monkeypatch):
    def zeros(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 EB")

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(MemoryLimitError, match=r"a volume of \(8, 8, 8\) and its sums: does not fit"):
        sliding_logits(awkward, volume_of(8, 8, 8), patch=(8, 8, 8), n_outputs=2)


def test_progress_is_the_share_of_windows():
    assert n_windows((12, 12, 8), (8, 8, 8), 0.5) == 4
    for batch in (4, 5):
        parts = []
        sliding_logits(awkward, volume_of(12, 12, 8), patch=(8, 8, 8), n_outputs=2, batch=batch, on_part=parts.append)
        assert parts == [min(shown, 32) / 32 for shown in range(batch, 32 + batch, batch)]  # 4 windows x 8 flips


def test_a_stop_is_answered_before_the_next_batch():  # R33
    class Stop(BaseException):
        pass

    seen = []

    def poll():
        if len(seen) == 3:
            raise Stop

    def predict(windows):
        seen.append(len(windows))
        return windows

    with pytest.raises(Stop):
        sliding_logits(predict, volume_of(16, 16, 16), patch=(8, 8, 8), batch=2, poll=poll)
    assert seen == [2, 2, 2]


# ---- bad input ----


@pytest.mark.parametrize(
    "change, message",
    [
        ({"volume": np.zeros((4, 4, 4), np.uint8)}, r"volume: got uint8 \(4, 4, 4\); accepted: a float32 array"),
        ({"volume": np.zeros((4, 4), np.float32)}, r"volume: got float32 \(4, 4\)"),
        ({"volume": np.zeros((4, 0, 4), np.float32)}, r"volume: got float32 \(4, 0, 4\)"),
        ({"volume": [1.0]}, "volume: got list"),
        ({"patch": (4, 4)}, r"patch: got \(4, 4\); accepted: three integers"),
        ({"patch": (4, 4, 0)}, r"patch: got \(4, 4, 0\)"),
        ({"overlap": 1.0}, "overlap: got 1.0; accepted: 0 or more, below 1"),
        ({"overlap": float("nan")}, "overlap: got nan"),
        ({"batch": 0}, "batch: got 0; accepted: an integer, 1 or more"),
        ({"n_outputs": 0}, "n_outputs: got 0"),
        ({"predict": lambda w: w[..., :2]}, r"predict: answered \(1, 1, 4, 4, 2\).*accepted: a tensor of \(1, 1, 4"),
        ({"predict": lambda w: w.numpy()}, "predict: answered ndarray"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    good = {"predict": lambda w: w, "volume": volume_of(4, 4, 4), "patch": (4, 4, 4)} | change
    with pytest.raises(ArgumentError, match=message):
        sliding_logits(good.pop("predict"), good.pop("volume"), **good)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_is_refused(value):
    with pytest.raises(DataError, match="predict: gave answers that are not finite"):
        sliding_logits(lambda w: w.index_fill(4, torch.tensor([1]), value), volume_of(4, 4, 4), patch=(4, 4, 4))


def test_a_fault_that_is_not_memory_is_not_tried_again():
    calls = []

    def predict(windows):
        calls.append(1)
        raise RuntimeError("Given groups=1, weight of size [4, 1, 3, 3, 3]")

    with pytest.raises(RuntimeError, match="Given groups=1"):
        sliding_logits(predict, volume_of(4, 4, 4), patch=(4, 4, 4), batch=8)
    assert calls == [1]
