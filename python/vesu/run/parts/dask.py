"""Parts on the workers of a Dask cluster, for those who have one: an optional extra, ``pip install 'vesu[dask]'``."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vesu.config import RunConfig
from vesu.errors import ArgumentError
from vesu.run.parts.plan import Phase
from vesu.run.parts.record import PartReport, read_part
from vesu.run.parts.work import make_part

__all__ = ["make_parts"]


class ClientLike(Protocol):
    """As much of a ``distributed.Client`` as is needed here."""

    def nthreads(self) -> Mapping[str, int]: ...
    def submit(self, function: Callable[..., Any], *arguments: Any, key: str, pure: bool) -> Any: ...
    def gather(self, futures: Sequence[Any]) -> Any: ...
    def cancel(self, futures: Sequence[Any]) -> Any: ...


def make_parts(
    client: ClientLike,
    data: str | Path | None,
    out: str | Path,
    *,
    phase: Phase,
    num_parts: int | None = None,
    config: RunConfig | None = None,
    model: str | Path | None = None,
    restart: bool = False,
) -> list[PartReport]:
    """All parts of a phase, each a task of a Dask cluster; they go to :func:`vesu.run.parts.merge`.

    Parameters
    ----------
    client : distributed.Client
        Of a running cluster whose workers see ``data``, ``out`` and ``model`` under the same names.
    data, phase, config, model, restart
        As for :func:`vesu.run.parts.make_part`. Without ``config.n_threads`` each part takes as many threads as the
        worker with the fewest has.
    out : path
        Folder in which each part gets one: ``out/part-0`` and so on.
    num_parts : int, optional
        Default: one for each worker. With more parts than workers, a quick worker takes more of them.

    Returns
    -------
    list of PartReport
        By number, each read back and verified here.

    Raises
    ------
    ArgumentError
        ``num_parts`` is no positive integer, or no worker is there.
    VesuError
        As :func:`vesu.run.parts.make_part` raises it: the first part's that fails; the others are cancelled. The same
        call goes on with what is done.

    Notes
    -----
    Requirement R53. The division into parts is the static one, so a part that moves to another worker, or is done
    again after a worker died, gives the same files. What a part needs crosses as plain values; results stay in the
    shared folder.

    Examples
    --------
    >>> from distributed import Client  # doctest: +SKIP
    >>> from vesu.run.parts import merge
    >>> from vesu.run.parts.dask import make_parts
    >>> with Client("scheduler:8786") as client:  # doctest: +SKIP
    ...     parts = make_parts(client, "data", "parts", phase="features")
    >>> print(merge([part.folder for part in parts], "merged"))  # doctest: +SKIP
    """
    threads = client.nthreads()
    if not threads:
        raise ArgumentError("client: got a cluster without workers; accepted: one with a worker or more")
    config = config or RunConfig()
    if config.n_threads is None:
        config = dataclasses.replace(config, n_threads=min(threads.values()))
    num_parts = len(threads) if num_parts is None else num_parts
    if isinstance(num_parts, bool) or not isinstance(num_parts, int) or num_parts < 1:
        raise ArgumentError(f"num_parts: got {num_parts!r}; accepted: an integer, 1 or more")
    folders = [Path(out).absolute() / f"part-{number}" for number in range(num_parts)]
    shared: dict[str, Any] = {
        "data": None if data is None else str(Path(data).absolute()),
        "phase": phase,
        "num_parts": num_parts,
        "config": config,
        "model": None if model is None else str(Path(model).absolute()),
        "restart": restart,
    }
    # Not "pure": the same words may find other files. One task a worker at a time: the kernels are parallel themselves.
    futures = [
        client.submit(_task, str(folder), number, shared, key=f"vesu-{phase}-{number}-{folder}", pure=False)
        for number, folder in enumerate(folders)
    ]
    try:
        client.gather(futures)
    finally:
        client.cancel(futures)
    return [read_part(folder) for folder in folders]


def _task(out: str, part_id: int, shared: Mapping[str, Any]) -> str:
    """On a worker: one part; its folder says the rest."""
    return make_part(out=out, part_id=part_id, **shared).digest
