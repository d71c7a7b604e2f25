"""The voxels of greatest probability, against NumPy's sort, and the table of events (R31)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from vesu.config import NonceConfig, load_config
from vesu.errors import ArgumentError
from vesu.ledger import LedgerWriter, iter_events, verify
from vesu.volume import ExtremeVoxels, extreme_voxels, iter_extreme_voxels

Volume = NDArray[np.float32]

LEVELS = [0.0, -0.0, 0.25, 0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 0.75, 1.0]
"""Few of them, so that most voxels tie."""

VOLUMES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7),
    elements=st.one_of(st.sampled_from(LEVELS), st.floats(0, 1, width=32)),
)


def reference(probability: Volume, top_k: int, at_least: float = 0.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Everything sorted, the order spelt out."""
    z, y, x = np.indices(probability.shape).reshape(3, -1)
    scores = probability.ravel() + 0.0
    order = np.lexsort((x, y, z, -scores))
    order = order[scores[order] >= np.float32(at_least)]
    order = order[: top_k or None]
    return np.stack((z, y, x), axis=1)[order], scores[order]


def assert_is(found: ExtremeVoxels, expected: tuple[NDArray[Any], NDArray[Any]]) -> None:
    np.testing.assert_array_equal(found.positions, expected[0].reshape(-1, 3))
    np.testing.assert_array_equal(found.scores.view(np.uint32), expected[1].astype(np.float32).view(np.uint32))


@given(VOLUMES, st.integers(0, 400), st.sampled_from([0.0, 0.25, 0.5, 0.6, 1.0]), st.sampled_from([1, 2, 3]))
@settings(max_examples=150, deadline=None)
def test_they_are_the_first_of_all_sorted(volume: Volume, top_k: int, at_least: float, n_threads: int) -> None:  # R31
    found = extreme_voxels(volume, top_k, at_least=at_least, n_threads=n_threads)
    assert_is(found, reference(volume, top_k, at_least))


@given(VOLUMES, st.integers(0, 60), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_the_pieces_make_the_whole(volume: Volume, top_k: int, chunk: int) -> None:  # R31
    pieces = list(iter_extreme_voxels(volume, top_k, at_least=0.25, chunk=chunk))
    assert all(0 < len(piece) <= chunk for piece in pieces)
    if pieces:
        positions = np.concatenate([piece.positions for piece in pieces])
        whole = ExtremeVoxels(positions, np.concatenate([piece.scores for piece in pieces]))
        assert_is(whole, reference(volume, top_k, 0.25))
    else:
        assert not (volume >= 0.25).any()


def test_many_chunks_and_threads_give_the_same_bits() -> None:  # R31
    rng = np.random.default_rng(0)
    volume = np.round(rng.random((20, 200, 210), dtype=np.float32), 2)  # 840,000 voxels, 101 levels
    expected = reference(volume, 30_000)
    for n_threads in (1, 2, 8):
        assert_is(extreme_voxels(volume, 30_000, n_threads=n_threads), expected)
    assert_is(extreme_voxels(volume[:, ::-1], 30_000), reference(np.ascontiguousarray(volume[:, ::-1]), 30_000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": -1}, "top_k: got -1; accepted: 0"),
        ({"top_k": 1.5}, "top_k: got 1.5"),
        ({"at_least": 1.5}, "at_least: got 1.5"),
        ({"at_least": float("nan")}, "at_least: got nan"),
        ({"at_least": "high"}, "at_least: got 'high'"),
        ({"probability": np.full((1, 1, 2), np.nan, np.float32)}, "probability: got 2 forbidden values"),
        ({"probability": np.full((1, 1, 2), 1.5, np.float32)}, "probability: got 2 forbidden values"),
        ({"probability": np.zeros((1, 1, 2))}, "probability: got dtype float64"),
        ({"probability": np.zeros((1, 2), np.float32)}, r"probability: got shape \[1, 2\]"),
        ({"chunk": 0}, "chunk: got 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    given_: dict[str, Any] = {"probability": np.zeros((1, 1, 2), np.float32), "top_k": 1} | arguments
    with pytest.raises(ArgumentError, match=message):
        list(iter_extreme_voxels(**given_))
    if "chunk" not in arguments:
        with pytest.raises(ArgumentError, match=message):
            extreme_voxels(**given_)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nonces.threshold=1.1", "nonces.threshold: got 1.1; accepted: 0 to 1"),
        ("nonces.quantile=1", "nonces.quantile: got 1.0"),
        ("nonces.top_k=-1", "nonces.top_k: got -1"),
        ("nonces.top_k=all", "nonces.top_k: got 'all'"),
        ("nonces.golden=1", "configuration key: got nonces.golden"),
    ],
)
def test_bad_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        load_config(overrides=[override], environment={})


def test_quantile_and_top_k_bound_a_volumes_nonces() -> None:  # R31
    assert NonceConfig(top_k=7).limit(1000) == 7
    assert NonceConfig(top_k=0).limit(1000) == 1000
    assert NonceConfig(top_k=0, quantile=0.99).limit(1000) == 10
    assert NonceConfig(top_k=7, quantile=0.999_999).limit(1000) == 1


# ---- a table of events


def test_a_table_is_an_event_a_row(tmp_path: Path) -> None:  # R31 R51
    path = tmp_path / "events.jsonl"
    with LedgerWriter(path) as ledger:
        ledger.append("START")
        columns = {"z": np.arange(3, dtype=np.uint32), "score": np.array([0.5, 0.1, np.inf], np.float32)}
        assert ledger.append_table("FOUND", columns, common={"volume_id": 'a"\n'}, ts_ns=5) == 1
        assert ledger.size == 4
    assert verify(path).entries == 4
    found = [event for event in iter_events(path) if event["event"] == "FOUND"]
    assert [event["z"] for event in found] == [0, 1, 2]
    assert [event["score"] for event in found] == [0.5, float(np.float32(0.1)), None]
    assert found[2]["nonfinite"] == ["score"]
    assert {event["volume_id"] for event in found} == {'a"\n'}
    assert len({event["ts_ns"] for event in found}) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"z": [1, 2], "y": [1]}, r"lengths \[2, 1\]"),
        ({"z": ["a"]}, "columns: got <U1 of shape"),
        ({"z": [[1]]}, r"columns: got int64 of shape \(1, 1\) for 'z'"),
        ({"z": []}, r"columns: got float64 of shape \(0,\) for 'z'"),
        ({"seq": [1]}, 'the field "seq"'),
        ({"volume_id": [1]}, 'the field "volume_id" twice'),
    ],
)
def test_a_bad_table_adds_nothing(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with LedgerWriter(tmp_path / "log") as ledger:
        with pytest.raises(ArgumentError, match=message):
            ledger.append_table("FOUND", columns, common={"volume_id": "a"})
        assert ledger.size == 0
    assert json.dumps(list(iter_events(tmp_path / "log"))) == "[]"
