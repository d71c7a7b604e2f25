"""The table of sampled rows: the bits of a plain join, in the memory of one (R02, R09, R16)."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vesu
from vesu.config import RunConfig, SamplingConfig, SearchConfig
from vesu.data.discover import discover
from vesu.data.phantom import write_dataset
from vesu.data.preflight import MEMORY_BYTES_PER_VOXEL
from vesu.errors import DataError
from vesu.run import rows as module
from vesu.run.plan import memory_bytes, row_bytes
from vesu.run.rows import Rows, RowTable


def drawn(n_rows: int, n_channels: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=(2, n_rows, n_channels)).astype(np.float32)
    return Rows(x, g, rng.integers(0, 2, n_rows).astype(np.uint8))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    n_channels=st.integers(1, 5),
    spare=st.integers(0, 7),
    block=st.integers(1, 8),
    data=st.data(),
)
def test_a_table_is_the_join_of_its_parts(  # R16
    sizes: list[int], n_channels: int, spare: int, block: int, data: st.DataObject
) -> None:
    columns = data.draw(st.lists(st.integers(0, n_channels - 1), unique=True, min_size=1).map(sorted))
    parts = [drawn(n, n_channels, seed) for seed, n in enumerate(sizes)]
    table = RowTable(sum(sizes) + spare, range(n_channels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        for rows in parts:
            table.append(rows)
        joined = [np.concatenate([getattr(rows, name) for rows in parts]) for name in ("x", "g", "y")]
        seen = list(table.parts())
        found = table.samples(columns)
    assert sum(len(y) for _, y in seen) == sum(sizes)
    if seen:
        np.testing.assert_array_equal(np.concatenate([x for x, _ in seen]), joined[0])
        np.testing.assert_array_equal(np.concatenate([y for _, y in seen]), joined[2])
    assert found.gradient is not None and found.x.flags.c_contiguous and found.gradient.flags.c_contiguous
    np.testing.assert_array_equal(found.x, joined[0][:, columns])
    np.testing.assert_array_equal(found.gradient, joined[1][:, columns])
    np.testing.assert_array_equal(found.y, joined[2])


def test_nothing_is_held_twice() -> None:  # R16
    n_volumes, rows = 60, drawn(10_000, 27, 0)
    held = n_volumes * (rows.x.nbytes + rows.g.nbytes + rows.y.nbytes)
    tracemalloc.start()
    try:
        table = RowTable(n_volumes * len(rows.y), range(27))
        for _ in range(n_volumes):
            table.append(rows)
        samples = table.samples(range(2, 27))
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert samples.n_samples == n_volumes * 10_000
    assert held < peak < 1.5 * held  # a block beside it; a copy would be 1.9
    assert size < 0.94 * held  # the two dropped columns are given back


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("rows") / "data", n_train=3, n_test=1, shape=(16, 16, 16))


def test_the_room_of_rows_is_that_of_what_the_volumes_have(data: Path) -> None:  # R02
    inventory = discover(data)
    few = RunConfig(sampling=SamplingConfig(voxels_per_volume=100))
    every = RunConfig(sampling=SamplingConfig(voxels_per_volume=10**9))
    epochs = RunConfig(sampling=few.sampling, search=SearchConfig(supervised_epochs=5))
    assert row_bytes(inventory, few, 27) == 3 * 100 * (2 * 27 * 4 + 1)
    assert row_bytes(inventory, every, 27) == 3 * 16**3 * (2 * 27 * 4 + 1)
    assert row_bytes(inventory, epochs, 27) == 5 * row_bytes(inventory, few, 27)
    assert row_bytes(inventory, RunConfig(pipeline="nx46"), 27) == 0
    volume = 16**3 * MEMORY_BYTES_PER_VOXEL
    assert memory_bytes(inventory, few, 27) == volume + row_bytes(inventory, few, 27)
    assert memory_bytes(inventory, epochs, 27) == volume + 2 * row_bytes(inventory, few, 27)  # the next beside the last


def test_samples_that_do_not_fit_the_memory_stop_the_run_first(  # R02
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(sampling=SamplingConfig(voxels_per_volume=1000))
    needed = memory_bytes(discover(data), config, 27)
    monkeypatch.setattr("vesu.data.preflight.available_memory_bytes", lambda: needed - 1)
    with pytest.raises(DataError, match="MEMORY_ROOM"):
        vesu.run(data, tmp_path / "run", config=config, display="none")
    assert not (tmp_path / "run" / "cache").exists()  # before any work
