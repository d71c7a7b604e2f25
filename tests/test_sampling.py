"""Class-balanced, seeded, order-free voxel sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reference_data import eligible, expected_shares
from vesu.data.sampling import coverage, sample_voxels
from vesu.errors import ArgumentError, DataError

labels = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7), elements=st.integers(0, 2)
)


# R16
@settings(deadline=None, max_examples=150)
@given(label=labels, n=st.integers(1, 400), seed=st.integers(0, 2**63 - 1), margin=st.integers(0, 2), data=st.data())
def test_against_the_reference(label: np.ndarray, n: int, seed: int, margin: int, data: st.DataObject) -> None:
    if 2 * margin >= min(label.shape):
        with pytest.raises(ArgumentError, match="margin: got"):
            sample_voxels(label, n, seed=seed, volume_id="a", margin=margin)
        return
    allowed = eligible(label, margin)
    single = data.draw(st.booleans())
    present = sum(1 for voxels in allowed.values() if voxels)
    if present == 0 or (present == 1 and not single):
        with pytest.raises(DataError, match=f"{len(allowed[0])} background and {len(allowed[1])} surface"):
            sample_voxels(label, n, seed=seed, volume_id="a", margin=margin, allow_single_class=single)
        return
    index = sample_voxels(label, n, seed=seed, volume_id="a", margin=margin, allow_single_class=single)
    assert index.dtype == np.int64
    assert np.all(np.diff(index) > 0)
    drawn = {cls: {int(i) for i in index if label.flat[i] == cls} for cls in (0, 1)}
    assert drawn[0] <= allowed[0]
    assert drawn[1] <= allowed[1]
    assert (len(drawn[0]), len(drawn[1])) == expected_shares(n, len(allowed[0]), len(allowed[1]))
    assert len(index) == len(drawn[0]) + len(drawn[1])  # never a 2


def halves(shape: tuple[int, int, int] = (20, 20, 20)) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[10:12] = 1
    label[0], label[-1] = 2, 2
    return label


# R16: seeded, and a function of nothing else
def test_the_draw_depends_on_seed_volume_and_draw_number_only() -> None:
    label = halves()
    settings_ = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "0a", 0)]
    draws = [sample_voxels(label, 200, seed=s, volume_id=v, draw=d).tobytes() for s, v, d in settings_]
    assert len(set(draws)) == len(draws)
    again = [sample_voxels(label, 200, seed=s, volume_id=v, draw=d).tobytes() for s, v, d in reversed(settings_)]
    assert again[::-1] == draws
    np.random.seed(5)  # noqa: NPY002 (the global state must not matter)
    assert sample_voxels(np.asfortranarray(label), 200, seed=0, volume_id="a").tobytes() == draws[0]


# R16: the same numbers on every machine and NumPy version
def test_golden_draw() -> None:
    index = sample_voxels(halves(), 12, seed=7, volume_id="1407735")
    assert index.tolist() == GOLDEN


GOLDEN = [2335, 3221, 4128, 4263, 4291, 4375, 4607, 4695, 4806, 4985, 5132, 5376]


# R16: uniform within a class, for each of the two ways to draw
@pytest.mark.parametrize("n", [20, 90])
def test_every_voxel_of_a_class_is_equally_likely(n: int) -> None:
    label = np.zeros((4, 5, 6), np.uint8)
    label[2:] = 1  # 60 of each class
    counts = np.zeros(label.size)
    rounds = 800
    for draw in range(rounds):
        counts[sample_voxels(label, n, seed=0, volume_id="a", draw=draw)] += 1
    p = n / label.size
    spread = (counts - rounds * p) / np.sqrt(rounds * p * (1 - p))
    assert np.abs(spread).max() < 4.5
    assert 0.6 < spread.std() < 1.4


# R16: 40,000 of a full volume, fast and without a list of all voxels
def test_a_full_volume() -> None:
    label = np.zeros((320, 320, 320), np.uint8)
    label[::20] = 1
    index = sample_voxels(label, 40_000, seed=0, volume_id="a", margin=4)
    assert np.bincount(label.ravel()[index]).tolist() == [20_000, 20_000]
    z, y, x = np.unravel_index(index, label.shape)
    for axis in (z, y, x):
        assert axis.min() >= 4
        assert axis.max() < 316


def test_an_all_ignored_label_says_so() -> None:
    with pytest.raises(DataError, match="volume 42: got 0 background and 0 surface voxels"):
        sample_voxels(np.full((4, 4, 4), 2, np.uint8), 10, seed=0, volume_id="42", allow_single_class=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "n: got 0"),
        ({"n": 2.5}, "n: got 2.5"),
        ({"n": True}, "n: got True"),
        ({"seed": -1}, "seed: got -1"),
        ({"margin": -1}, "margin: got -1"),
        ({"margin": 10}, "margin: got 10"),
        ({"draw": -1}, "draw: got -1"),
        ({"volume_id": ""}, "volume_id: got ''"),
        ({"label": np.zeros((4, 4), np.uint8)}, r"label: got uint8 of shape \(4, 4\)"),
        ({"label": np.zeros((4, 0, 4), np.uint8)}, r"label: got uint8 of shape \(4, 0, 4\)"),
        ({"label": np.zeros((4, 4, 4))}, "label: got float64"),
        ({"label": [[[0, 1]]]}, "label: got list"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, object], message: str) -> None:
    arguments = {"label": halves(), "n": 10, "seed": 0, "volume_id": "a", "margin": 0, "draw": 0} | changed
    with pytest.raises(ArgumentError, match=message):
        sample_voxels(arguments.pop("label"), arguments.pop("n"), **arguments)  # type: ignore[arg-type]


# R16, R40
def test_coverage_names_what_is_missing() -> None:
    report = coverage(["b", "a", "c", "d"], {"a": 10, "c": 0, "d": 5})
    assert report.pair_count_discovered == 4
    assert report.pair_count_selected_for_training == 2
    assert report.train_pair_coverage_pct_effective == 50.0
    assert (report.n_voxels, report.missing) == (15, ("b", "c"))
    assert coverage([], {}).train_pair_coverage_pct_effective == 0.0
    with pytest.raises(ArgumentError, match="sampled: got 'x'"):
        coverage(["a"], {"x": 1})
    with pytest.raises(ArgumentError, match="negative"):
        coverage(["a"], {"a": -1})
