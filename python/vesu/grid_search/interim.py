"""The model of a search that is not done: what a run submits when its time is over before its work is (R33)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from vesu.grid_search.checks import labels_of, samples_of
from vesu.grid_search.model import ProxFitModel, ensemble
from vesu.grid_search.samples import AnySamples
from vesu.grid_search.search import Search
from vesu.grid_search.selection import SelectionWeights
from vesu.grid_search.state import SearchState

__all__ = ["interim_model", "interim_model_of"]


def interim_model(
    state: SearchState,
    X_val: ArrayLike,
    y_val: ArrayLike,
    gradient_val: ArrayLike | None,
    *,
    top_k: int,
    feature_names: Sequence[str],
    selection: SelectionWeights | None = None,
    n_threads: int | None = None,
) -> ProxFitModel:
    """The best candidates as they stand in ``state``, ranked on validation data; the state is left as it is.

    Parameters
    ----------
    state : SearchState
        Of a search between two iterations.
    X_val, y_val, gradient_val : arrays
        Validation data, as in :meth:`ElasticNetLogisticGrid.fit`, of classes 0 and 1.
    top_k : int
        Members, fewer where fewer candidates did not diverge.
    feature_names : sequence of str
        Of the columns.
    selection : SelectionWeights, optional
        Objective that ranks the candidates.
    n_threads : int, optional
        Threads; the result does not depend on it.

    Raises
    ------
    ArgumentError
        Data of other columns than the state's, or a state whose candidates all diverged.

    Examples
    --------
    >>> from vesu.grid_search import ElasticNetLogisticGrid
    >>> X = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    >>> y, kept = (X[:, 0] > 0).astype(np.uint8), []
    >>> grid = ElasticNetLogisticGrid(meta_neurons=2, max_iter=10)
    >>> _ = grid.fit(X, y, on_iteration=lambda r: kept.append(r.state()) if r.iteration == 4 else None)
    >>> len(interim_model(kept[0], X, y, None, top_k=3, feature_names=("a", "b")).candidates)
    3
    """
    names = ("X_val", "y_val", "gradient_val")
    samples = samples_of(names, X_val, labels_of("y_val", y_val), gradient_val, np.array([0, 1]))
    return interim_model_of(
        state, samples, top_k=top_k, feature_names=feature_names, selection=selection, n_threads=n_threads
    )


def interim_model_of(
    state: SearchState,
    validation: AnySamples,
    *,
    top_k: int,
    feature_names: Sequence[str],
    selection: SelectionWeights | None = None,
    n_threads: int | None = None,
) -> ProxFitModel:
    """:func:`interim_model` from samples that are checked already; several processes may hold them."""
    search = Search.resume(state, n_threads)
    table = search.rank(validation, selection or SelectionWeights())
    alive = int((~table["diverged"]).sum())
    return ensemble(search, table, min(top_k, alive), tuple(feature_names))
