"""A run in several processes that ``torchrun`` started: the first runs the staircase, the others serve it.

They hold rows of the search's samples and take passes of the student's training; they keep no state of the run, write
no event and no file. So whatever ends the first process ends the run, and the run can go on in any number of processes.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

from numpy.typing import NDArray

from vesu import _core
from vesu.config import RunConfig
from vesu.distill.packages import need_package
from vesu.errors import ArgumentError
from vesu.grid_search import Shards
from vesu.grid_search.shared import Arrays
from vesu.run.ranks_link import Link, Message, RankFailed

__all__ = ["RankFailed", "Ranks", "joined", "require_divisible"]

TIMEOUT_VARIABLE = "VESU_RANKS_TIMEOUT_S"
TIMEOUT_S = 1800.0
"""How long a process waits for another: a validation of the student may lie between."""

KEEP_ALIVE_PART = 0.1
"""Of the timeout, after which the first process says that it is still there."""

GRACE_S = 1.0
"""How long a request to stop may come behind the end of another process that it went to as well."""

Handler = Callable[[Mapping[str, Any], Mapping[str, NDArray[Any]]], object]


class Ranks:
    """This process among those of a run.

    Parameters
    ----------
    rank, world : int
    timeout_s : float
        How long another process may take to answer.

    Notes
    -----
    R11, R53. It is the :class:`~vesu.grid_search.shared.Workers` of the search: a request goes to every process, each
    answers on the rows that it holds.
    """

    def __init__(self, rank: int, world: int, timeout_s: float) -> None:
        self.rank, self.world = rank, world
        self.guard: Callable[[], AbstractContextManager[object]] = nullcontext
        """Around each request and its answers: no exception from outside may come between (a stop is deferred)."""
        self.link = Link(timeout_s)
        self._timeout_s = timeout_s
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        self._shards = Shards(max(1, _core.thread_count() // here))
        self._busy = threading.Lock()
        self._ended = threading.Event()

    @property
    def is_first(self) -> bool:
        """Whether this process runs the staircase."""
        return self.rank == 0

    # ---- the first process

    def ask(
        self, command: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, only: int | None = None
    ) -> list[Arrays]:
        """What every process answers, in their order, or the process ``only``.

        Raises
        ------
        RankFailed
            Another process failed, died or does not answer.
        """
        asked = range(self.world) if only is None else (only,)
        with self._request([rank for rank in asked if rank], command, fields, arrays) as answers:
            own = [self._shards.answer(command, fields, arrays)] if 0 in asked else []
        return own + [message.arrays for message in answers]

    @contextmanager
    def together(
        self, command: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Iterator[list[Message]]:
        """Every other process does this while the body runs here; their answers are there behind it."""
        with self._request(list(range(1, self.world)), command, fields, arrays) as answers:
            yield answers

    @contextmanager
    def _request(
        self, others: list[int], command: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Iterator[list[Message]]:
        answers: list[Message] = []
        lost: RankFailed | None = None
        cut: BaseException | None = None
        with self.guard(), self._busy:
            try:
                for rank in others:
                    self.link.send(rank, command, fields, arrays)
                try:
                    yield answers
                except BaseException as error:
                    cut = error
                    raise
                finally:  # whatever went wrong here: the others' answers must not be taken for those of a later request
                    answers += [self.link.receive(rank) for rank in others]
            except RankFailed as error:
                lost = error
        if lost is not None and cut is not None:
            raise cut  # a stop that was asked for here: that the others left on the same Ctrl-C is no failure
        if lost is not None:
            time.sleep(GRACE_S)  # a Ctrl-C goes to all: then the stop is the cause, and is raised here
            raise lost
        for rank, message in zip(others, answers, strict=True):
            if message.word == "failed":
                raise RankFailed(f"process {rank} of {self.world}: {message.fields['error']}")

    @contextmanager
    def leading(self) -> Iterator[None]:
        """While the body runs the others are told now and then that it does; behind it, that they may go."""
        beats = threading.Thread(target=self._keep_alive, name="vesu-ranks", daemon=True)
        beats.start()
        try:
            yield
        finally:
            self._ended.set()
            beats.join()
            for rank in range(1, self.world):
                with suppress(RankFailed):
                    self.link.send(rank, "end", {}, {})

    def _keep_alive(self) -> None:
        while not self._ended.wait(KEEP_ALIVE_PART * self._timeout_s):
            if self._busy.acquire(blocking=False):
                try:
                    for rank in range(1, self.world):
                        self.link.send(rank, "idle", {}, {})
                except RankFailed:  # the next request will say so
                    return
                finally:
                    self._busy.release()

    # ---- the others

    def serve(self, handlers: Mapping[str, Handler]) -> None:
        """Answer the first process until it says that the run is over.

        Parameters
        ----------
        handlers : mapping of str to callable
            What is done for commands other than those of the search, by name.

        Raises
        ------
        RankFailed
            The first process died or says nothing for too long.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):  # nothing here is worth saving: leave at once
                signal.signal(number, signal.SIG_DFL)
        while True:
            message = self.link.receive(0)
            if message.word == "end":
                return
            if message.word != "idle":
                self.link.send(0, *self._answer(message, handlers))

    def _answer(self, message: Message, handlers: Mapping[str, Handler]) -> tuple[str, Mapping[str, Any], Arrays]:
        try:
            if message.word in handlers:
                handlers[message.word](message.fields, message.arrays)
                return "done", {}, {}
            return "done", {}, self._shards.answer(message.word, message.fields, message.arrays)
        except Exception as error:  # noqa: BLE001  # whatever it is, the first process must hear of it
            return "failed", {"error": f"{type(error).__name__}: {error}"}, {}


@contextmanager
def joined(config: RunConfig) -> Iterator[Ranks | None]:
    """The processes that ``torchrun`` started for this run; None where there is only this one.

    Parameters
    ----------
    config : RunConfig

    Yields
    ------
    Ranks or None

    Raises
    ------
    ArgumentError
        A solver or a device that processes cannot share; a ``WORLD_SIZE`` that is no number.
    MissingPackageError
        torch is not installed.

    Notes
    -----
    ``torchrun --nproc-per-node 2 -m vesu run ...`` sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and the address to
    meet at. A process group that the program itself opened is used and left open.

    Examples
    --------
    >>> with joined(RunConfig()) as ranks:
    ...     print(ranks)
    None
    """
    if _world() == 1:
        yield None
        return
    _check(config)
    torch = need_package("torch", "distill")
    distributed, timeout_s = torch.distributed, _timeout_s()
    was_open = distributed.is_initialized()
    if not was_open:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        both = torch.cuda.is_available() and distributed.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if both else "gloo"
        try:
            distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        except (RuntimeError, ValueError) as error:
            raise RankFailed(f"the processes of this run did not meet: {str(error).splitlines()[0]}") from error
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), timeout_s)
    finally:
        if not was_open:
            with suppress(RuntimeError):
                distributed.destroy_process_group()


def _check(config: RunConfig) -> None:
    search = config.search
    if config.pipeline == "vesu" and search.solver == "prox_newton":
        accepted = "'ista' or 'fista' where processes share the search"
        raise ArgumentError(f"search.solver: got 'prox_newton'; accepted: {accepted}")
    if config.pipeline == "vesu" and search.device not in ("cpu", "auto"):
        raise ArgumentError(f"search.device: got {search.device!r}; accepted: 'cpu' where processes share the search")


def require_divisible(world: int, config: RunConfig) -> None:
    """Refuse a student whose forward passes the processes cannot share evenly: now, not after the search.

    Raises
    ------
    ArgumentError
    """
    if config.student.accumulate % world:
        got, accepted = config.student.accumulate, f"a multiple of the {world} processes"
        raise ArgumentError(f"student.accumulate: got {got}; accepted: {accepted}")


def _world() -> int:
    given = os.environ.get("WORLD_SIZE", "1")
    if not (given.isascii() and given.isdigit() and int(given) > 0):
        raise ArgumentError(f"WORLD_SIZE: got {given!r}; accepted: the number of processes, as torchrun sets it")
    return int(given)


def _timeout_s() -> float:
    given = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        found = float(given) if given else TIMEOUT_S
    except ValueError:
        found = 0.0
    if not 1.0 <= found <= 1e6:
        raise ArgumentError(f"{TIMEOUT_VARIABLE}: got {given!r}; accepted: seconds, 1 to 1000000")
    return found
