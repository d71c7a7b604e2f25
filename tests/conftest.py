"""Shared fixtures: a small generated data set and one finished run on it."""

import os
import signal
from pathlib import Path

import pytest

import vesu
from vesu.data.phantom import write_dataset
from vesu.run.pipeline import RunResult

SMALL = ["sampling.voxels_per_volume=1500", "segment.dust.min_voxels=30"]
"""A mini run: fewer voxels; the grid and its iterations stay whole (R50)."""


def pytest_configure() -> None:
    """A suite that a shell started in its background inherits a deaf ear to Ctrl-C, which many tests press."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", n_train=3, n_test=2, shape=(48, 48, 48), seed=3)


@pytest.fixture(scope="session")
def small_config() -> vesu.RunConfig:
    return vesu.load_config(overrides=SMALL, environment={})


@pytest.fixture(scope="session")
def finished(dataset: Path, small_config: vesu.RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return vesu.run(dataset, tmp_path_factory.mktemp("run"), config=small_config, display="none")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the research volumes; the test skips aloud without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VESU_DATA", beside))
    if not (folder / "predictions").is_dir():
        pytest.skip(f"no research volumes in {folder}: set VESU_DATA to their folder")
    return folder
