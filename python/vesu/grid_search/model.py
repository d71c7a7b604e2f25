"""The model that a search leaves: an ensemble of candidates that predicts samples and whole feature volumes."""

import math
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.grid_search.checks import float32_rows, integer
from vesu.grid_search.npzfile import Archive, read_npz, write_npz
from vesu.grid_search.search import Search

__all__ = ["ProxFitModel", "ensemble", "ensemble_order"]

FORMAT = "vesu-prox-fit/1"
ARRAYS = {"coef": (np.float64, 2), "intercept": (np.float64, 1), "mean": (np.float64, 1), "scale": (np.float64, 1)}
MAX_MEMBER_BYTES = 64 << 20
"""A real model takes some kilobytes; a file that claims more than this a member is refused unread."""


@dataclass(frozen=True, eq=False)
class ProxFitModel:
    """Candidates that predict together: mean probability and spread (R17).

    Each member's probability is sigmoid(x'.w + x'^2.alpha + g'.beta + b) with x' = (x - mean) / scale, g' = g / scale.
    ``coef`` holds (w, alpha, beta) of the standardised features, or (w, alpha) without gradients.

    Raises
    ------
    ArgumentError
        Shapes that do not agree, values that are not finite, scales that are not positive.

    Examples
    --------
    >>> model = ProxFitModel(np.array([[2.0, 0.0]]), np.zeros(1), np.zeros(1), np.ones(1), ("f0",), 0.5, False, (0,))
    >>> mean, spread = model.predict_proba(np.array([[-1.0], [1.0]], np.float32))
    >>> np.round(mean, 3).tolist(), spread.tolist()
    ([0.119..., 0.880...], [0.0, 0.0])
    """

    coef: NDArray[np.float64]
    """(n_members, n_coefficients)"""
    intercept: NDArray[np.float64]
    """(n_members,)"""
    mean: NDArray[np.float64]
    """(n_features,)"""
    scale: NDArray[np.float64]
    """(n_features,)"""
    feature_names: tuple[str, ...]
    threshold: float
    """Probability from which a sample is called positive: the median of the members' best thresholds."""
    uses_gradient: bool
    candidates: tuple[int, ...]
    """Which candidates of the grid the members are, best first."""

    def __post_init__(self) -> None:
        for name, (dtype, ndim) in ARRAYS.items():
            array = getattr(self, name)
            if not (isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == ndim):
                raise ArgumentError(f"{name}: accepted: a {ndim}-D array of {np.dtype(dtype)}")
            if not np.isfinite(array).all():
                raise ArgumentError(f"{name}: got NaN or infinite values; accepted: finite values")
        n_members, n_features = len(self.intercept), len(self.mean)
        width = n_features * (3 if self.uses_gradient else 2)
        shapes = (self.coef.shape, self.scale.shape, len(self.feature_names), len(self.candidates))
        if min(n_members, n_features) == 0 or shapes != ((n_members, width), (n_features,), n_features, n_members):
            got = f"coef {self.coef.shape}, intercept {self.intercept.shape}, mean {self.mean.shape}, "
            got += f"scale {self.scale.shape}, {len(self.feature_names)} names, {len(self.candidates)} candidates"
            raise ArgumentError(f"model: got {got}; accepted: shapes that agree, none empty")
        if not (self.scale > 0).all():
            raise ArgumentError("scale: got values <= 0; accepted: values above 0")
        if not 0 <= self.threshold <= 1:
            raise ArgumentError(f"threshold: got {self.threshold}; accepted: 0 to 1")

    def predict_proba(
        self, x: NDArray[Any], g: NDArray[Any] | None = None, *, n_threads: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean probability of the positive class and its standard deviation over the members.

        Parameters
        ----------
        x : array, shape (n_samples, n_features)
            Raw features; float32 is not copied.
        g : array, shape (n_samples, n_features), optional
            Raw spatial gradient magnitudes, exactly where the model uses them.

        Returns
        -------
        mean, deviation : float32, shape (n_samples,)

        Raises
        ------
        ArgumentError
            A wrong shape or dtype, NaN or infinities (with count and first position), ``g`` missing or too much.
        """
        gradient = None if g is None else float32_rows("gradient", g)
        if (gradient is not None) != self.uses_gradient:
            raise ArgumentError(f"gradient: got {'None' if g is None else 'an array'}; accepted: as in the fit")
        return _core.prox_predict(
            float32_rows("x", x), gradient, self.mean.tolist(), self.scale.tolist(), self._params(), n_threads=n_threads
        )

    def predict_volume(
        self, values: NDArray[np.float32], *, n_threads: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probability and uncertainty of every voxel of a feature volume.

        The spatial gradient magnitude of each channel (``numpy.gradient``: central differences, one-sided at the
        faces) is formed voxel by voxel and never stored.

        Parameters
        ----------
        values : float32, shape (n_features, z, y, x)

        Returns
        -------
        probability, uncertainty : float32, shape (z, y, x)
            Mean and population standard deviation over the members.

        Raises
        ------
        ArgumentError
            A wrong shape or dtype, NaN or infinities (with count and first position).
        """
        return _core.prox_predict_volume(
            values, self.uses_gradient, self.mean.tolist(), self.scale.tolist(), self._params(), n_threads=n_threads
        )

    def _params(self) -> NDArray[np.float64]:
        return np.concatenate([self.coef, self.intercept[:, None]], axis=1)

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write an .npz of plain arrays and a JSON text; the same model gives the same bytes. A path is written
        atomically.

        Raises
        ------
        FileError
            The operating system refused a step; the old file, if any, is untouched.
        """
        meta = {
            "format": FORMAT,
            "feature_names": list(self.feature_names),
            "threshold": self.threshold,
            "uses_gradient": self.uses_gradient,
            "candidates": list(self.candidates),
        }
        write_npz(file, meta, {name: getattr(self, name) for name in ARRAYS})

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> "ProxFitModel":
        """Read what :meth:`save` wrote; nothing in the file is trusted.

        Raises
        ------
        FileError
            The file cannot be read.
        FormatError
            Not such a file, another version, truncated, or values that do not make a model.
        """
        return read_npz(file, _build, format=FORMAT, max_member_bytes=MAX_MEMBER_BYTES)


def ensemble_order(table: NDArray[Any]) -> NDArray[Any]:
    """Rows in the order in which an ensemble takes them: first the first of each meta-neuron, then the rest.

    The rows' own order says which is better; diverged ones are left out. So the spread is between learners (R17).
    """
    table = table[~table["diverged"]]
    _, first_of_neuron = np.unique(table["neuron"], return_index=True)
    is_later = np.ones(len(table), bool)
    is_later[first_of_neuron] = False
    ordered: NDArray[Any] = table[np.argsort(is_later, kind="stable")]
    return ordered


def ensemble(search: Search, table: NDArray[Any], top_k: int, feature_names: tuple[str, ...]) -> ProxFitModel:
    """The best of a table, leaderboard rows best first, as one model."""
    ordered = ensemble_order(table)
    members = ordered[: integer("top_k", top_k, 1, len(ordered))]
    chosen = members["candidate"]
    return ProxFitModel(
        coef=np.ascontiguousarray(search.params[chosen, :-1]),
        intercept=search.params[chosen, -1],
        mean=search.problem.mean,
        scale=search.problem.scale,
        feature_names=feature_names,
        threshold=float(np.median(members["threshold"])),
        uses_gradient=search.problem.uses_gradient,
        candidates=tuple(int(candidate) for candidate in chosen),
    )


def _build(archive: Archive) -> ProxFitModel:
    meta = archive.meta
    names, threshold, candidates = meta["feature_names"], meta["threshold"], meta["candidates"]
    if not (isinstance(meta["uses_gradient"], bool) and isinstance(threshold, float) and math.isfinite(threshold)):
        raise ValueError("uses_gradient or threshold of a wrong type")
    if not (all(type(text) is str for text in names) and all(type(number) is int for number in candidates)):
        raise ValueError("feature_names or candidates of a wrong type")
    return ProxFitModel(
        **{name: archive.array(name, ndim, (np.dtype(dtype),)) for name, (dtype, ndim) in ARRAYS.items()},
        feature_names=tuple(names),
        threshold=threshold,
        uses_gradient=meta["uses_gradient"],
        candidates=tuple(candidates),
    )
