"""Parts on a Dask cluster: two worker processes on this machine."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import vesu
from parts_case import files_of, made
from vesu.data.phantom import write_dataset
from vesu.errors import ArgumentError, DataError
from vesu.run.parts import merge
from vesu.run.parts.dask import make_parts

distributed = pytest.importorskip("distributed", reason="pip install 'vesu[dask]'")


@pytest.fixture(scope="module")
def client() -> Iterator["distributed.Client"]:
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=None
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def test_parts_on_two_workers_are_those_of_this_process(client: "distributed.Client", tmp_path: Path) -> None:  # R53
    data = write_dataset(tmp_path / "set", n_train=2, n_test=3, shape=(16, 16, 16), seed=1)
    config = vesu.load_config(overrides=["pipeline=nx46"], environment={})
    parts = make_parts(client, data, tmp_path / "parts", phase="segment", config=config)
    here = made(data, tmp_path / "here", config, "segment")
    assert [files_of(part) for part in parts] == [files_of(part) for part in here]
    zips = [merge([part.folder for part in each], tmp_path / name) for each, name in ((parts, "a"), (here, "b"))]
    assert zips[0].submission is not None and zips[1].submission is not None
    assert zips[0].submission.sha256 == zips[1].submission.sha256
    with pytest.raises(DataError, match="holds another part"):
        make_parts(client, data, tmp_path / "parts", phase="segment", num_parts=1, config=config)


def test_what_no_worker_can_do_is_refused(tmp_path: Path) -> None:
    for threads, named in (({}, "client"), ({"a": 1}, "num_parts")):
        with pytest.raises(ArgumentError, match=named):
            make_parts(SimpleNamespace(nthreads=lambda t=threads: t), None, tmp_path, phase="segment", num_parts=0)  # type: ignore[arg-type]
