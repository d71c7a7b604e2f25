"""Data-parallel training under ``torchrun``: the same bits as one process with the same global batch.

Ranks take the forward passes of a step in turn. Each pass' gradient is gathered from all and added in the passes'
order, which is the order in which one process adds them up: no all-reduce chooses an order of its own.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from vesu.errors import ArgumentError, VesuError

__all__ = ["AnotherRankStopped", "Ranks", "joined_ranks"]

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: a validation may lie between."""


class AnotherRankStopped(VesuError, RuntimeError):
    """This process is sound, but one that it trains with was stopped or failed; its own message says why."""


class Ranks:
    """This process among those that train together; alone it is rank 0 of 1 and nothing is sent.

    Examples
    --------
    >>> ranks = Ranks()
    >>> ranks.rank, ranks.world, list(ranks.share(3)), ranks.is_first
    (0, 1, [0, 1, 2], True)
    """

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.world = world
        self.device = device or torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this process writes events and checkpoints."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Those of `n` pieces of work that are this process' own."""
        return range(self.rank, n, self.world)

    def check_divides(self, accumulate: int) -> None:
        """Refuse a number of forward passes that the processes cannot share evenly.

        Raises
        ------
        ArgumentError
        """
        if accumulate % self.world:
            accepted = f"a multiple of the {self.world} processes"
            raise ArgumentError(f"student.accumulate: got {accumulate}; accepted: {accepted}")

    def fold(self, own: torch.Tensor, total: torch.Tensor | None) -> torch.Tensor:
        """Add the flat vectors of all ranks to `total` in the order of the ranks, on every rank alike.

        Parameters
        ----------
        own : torch.Tensor, shape (n,)
            This rank's.
        total : torch.Tensor, shape (n,), or None
            Changed in place; None begins with the first rank's.

        Returns
        -------
        torch.Tensor, shape (n,)
        """
        for part in self._gather(own):
            total = part.clone() if total is None else total.add_(part)
        assert total is not None
        return total

    def all_rows(self, own: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Rows that the ranks computed for their own :meth:`share` of `n`, all of them on every rank."""
        rows = np.zeros((n, *own.shape[1:]), np.int64)
        rows[self.rank :: self.world] = own
        if self.world > 1:
            total = torch.from_numpy(rows).to(self.device)
            with _answered():
                distributed.all_reduce(total)  # of integers, each from one rank only: no order matters
            rows = total.cpu().numpy()
        return rows

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag if self.world == 1 else self._largest(flag) > 0

    def first_says(self, flag: bool) -> bool:
        """The first rank's flag, on all."""
        return self.any(flag and self.is_first)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave the block by an error on all ranks if any of them does.

        Raises
        ------
        AnotherRankStopped
            Here nothing happened.
        """
        try:
            yield
        except BaseException:
            self.any(True)
            raise
        if self.any(False):
            raise AnotherRankStopped("training: another process of this training stopped; see its own message")

    def _gather(self, own: torch.Tensor) -> Sequence[torch.Tensor]:
        if self.world == 1:
            return (own,)
        parts = [torch.empty_like(own) for _ in range(self.world)]
        with _answered():
            distributed.all_gather(parts, own)
        return parts

    def _largest(self, flag: bool) -> int:
        answer = torch.tensor([int(flag)], device=self.device)
        with _answered():
            distributed.all_reduce(answer, op=distributed.ReduceOp.MAX)
        return int(answer.item())


@contextmanager
def _answered() -> Iterator[None]:
    """A process that died or hangs is told of by this room's error."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise AnotherRankStopped(f"training: another process is gone or does not answer ({said[0]})") from error


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, or this one alone.

    Parameters
    ----------
    device : str
        'cpu' joins by gloo; 'cuda' by NCCL, each process on the GPU of its local rank.

    Yields
    ------
    Ranks

    Notes
    -----
    ``torchrun --nproc-per-node 2 ...`` sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and the address to meet at. A
    process group that the program itself opened is used and left open.

    Examples
    --------
    >>> with joined_ranks("cpu") as ranks:
    ...     ranks.world
    1
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    where = torch.device(device)
    if where.type == "cuda" and where.index is None and world > 1:
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    was_open = distributed.is_available() and distributed.is_initialized()
    if not was_open and world == 1:
        yield Ranks(device=where)
        return
    if not was_open:
        distributed.init_process_group("nccl" if where.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), where)
    finally:
        if not was_open:
            distributed.destroy_process_group()


def flat_gradient(parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """All gradients in one vector, zeros where there is none."""
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters]
    return torch.cat(parts)


def set_gradient(parameters: Iterable[torch.Tensor], flat: torch.Tensor) -> None:
    """The inverse of :func:`flat_gradient`."""
    start = 0
    for parameter in parameters:
        part = flat[start : start + parameter.numel()]
        parameter.grad = part.view_as(parameter).clone(memory_format=torch.preserve_format)
        start += parameter.numel()
