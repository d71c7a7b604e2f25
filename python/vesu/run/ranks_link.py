"""Messages between the processes of a run: JSON and plain arrays over torch's point-to-point calls; no pickle."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vesu.distill.packages import need_package
from vesu.errors import VesuError

if TYPE_CHECKING:
    import torch

__all__ = ["Link", "Message", "RankFailed"]

MAX_HEAD_BYTES = 256 << 20
"""A longer head than this is no message of ours."""


class RankFailed(VesuError, RuntimeError):
    """Another process of this run failed, died or no longer answers; the message says which, and what is known."""


class Message:
    """A word, its fields, and arrays by name."""

    def __init__(self, word: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.word, self.fields, self.arrays = word, fields, dict(arrays)


class Link:
    """Sends and receives messages within torch's default process group.

    Parameters
    ----------
    timeout_s : float
        How long another process may take to answer.
    """

    def __init__(self, timeout_s: float) -> None:
        self._torch = need_package("torch", "distill")
        self._timeout = timedelta(seconds=timeout_s)
        self.bytes_sent = self.bytes_received = 0

    def send(self, rank: int, word: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Send a message to a process.

        Raises
        ------
        RankFailed
            It is gone, or takes nothing for too long.
        """
        packed = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        kinds = [[name, values.dtype.str, list(values.shape)] for name, values in packed.items()]
        head = np.frombuffer(json.dumps([word, fields, kinds]).encode(), np.uint8)
        parts = [np.array([len(head)]).view(np.uint8), head, *(_bytes(values) for values in packed.values())]
        for part in parts:
            if part.size:
                self._do("isend", self._tensor(part), rank)
                self.bytes_sent += part.size

    def receive(self, rank: int) -> Message:
        """The next message of a process.

        Raises
        ------
        RankFailed
            It is gone, or says nothing for too long.
        """
        (length,) = self._take(rank, np.empty(8, np.uint8)).view(np.int64).tolist()
        if not 0 < length <= MAX_HEAD_BYTES:
            raise RankFailed(f"process {rank}: its message has a head of {length} bytes")
        word, fields, kinds = json.loads(self._take(rank, np.empty(length, np.uint8)).tobytes())
        arrays = {}
        for name, kind, shape in kinds:
            values = np.empty(shape, np.dtype(kind))
            if values.size:
                self._take(rank, values.reshape(-1).view(np.uint8))
            arrays[name] = values
        return Message(word, fields, arrays)

    def _take(self, rank: int, into: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._do("irecv", self._tensor(into), rank)
        self.bytes_received += into.size
        return into

    def _tensor(self, values: NDArray[np.uint8]) -> "torch.Tensor":
        tensor: torch.Tensor = self._torch.from_numpy(values if values.flags.writeable else values.copy())
        return tensor

    def _do(self, call: str, tensor: "torch.Tensor", rank: int) -> None:
        try:
            getattr(self._torch.distributed, call)(tensor, rank).wait(self._timeout)
        except (RuntimeError, ValueError) as error:  # gloo says so where the other side is gone or late
            said = str(error).strip().splitlines()
            reason = said[0] if said else type(error).__name__
            raise RankFailed(
                f"process {rank}: gone, or no answer in {self._timeout.total_seconds():g} s ({reason})"
            ) from error


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return values.reshape(-1).view(np.uint8) if values.size else np.empty(0, np.uint8)
