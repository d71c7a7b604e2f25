"""What the fitted search answers: classes, probabilities, decisions, the ensemble as a model (R13, R17)."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu.errors import ArgumentError
from vesu.grid_search.checks import float32_rows, labels_of, number
from vesu.grid_search.conventions import EstimatorConventions
from vesu.grid_search.model import ProxFitModel, ensemble
from vesu.grid_search.search import Search
from vesu.notebook import table

__all__ = ["GridClassifier"]


class GridClassifier(EstimatorConventions):
    """The methods of a fitted grid that need nothing but its attributes."""

    n_threads: int | None
    threshold: float | Literal["selected"]
    classes_: NDArray[Any]
    leaderboard_: NDArray[Any]
    selection_data_: str
    search_: Search

    def predict_proba(self, X: ArrayLike, gradient: ArrayLike | None = None) -> NDArray[np.float32]:
        """Probabilities of both classes by the best candidate, float32 (n_samples, 2)."""
        self._require_fit("predict_proba")
        rows = float32_rows("X", X)
        self._check_features(X, rows.shape[1])
        slopes = None if gradient is None else float32_rows("gradient", gradient)
        positive, _ = self.model().predict_proba(rows, slopes, n_threads=self.n_threads)
        return np.stack([1 - positive, positive], axis=1)

    def decision_function(self, X: ArrayLike, gradient: ArrayLike | None = None) -> NDArray[np.float64]:
        """Log-odds of the positive class above those of the threshold, float64 (n_samples,): positive where called."""
        above: NDArray[np.float64] = _log_odds(self.predict_proba(X, gradient)[:, 1]) - _log_odds(self._threshold())
        return above

    def predict(self, X: ArrayLike, gradient: ArrayLike | None = None) -> NDArray[Any]:
        """Class of each sample by the best candidate: the likelier one, or as ``threshold`` says."""
        positive = self.decision_function(X, gradient) > 0
        chosen: NDArray[Any] = self.classes_[positive.astype(int)]
        return chosen

    def score(self, X: ArrayLike, y: ArrayLike, gradient: ArrayLike | None = None) -> float:
        """Share of the samples that :meth:`predict` calls right."""
        labels, called = labels_of("y", y), self.predict(X, gradient)
        if labels.shape != called.shape:
            raise ArgumentError(f"y: got {len(labels)} labels; accepted: {len(called)}, one a row of X")
        return float(np.mean(called == labels))

    def _repr_html_(self) -> str:
        if not hasattr(self, "leaderboard_"):
            return table(f"{self!r}, not fitted", [], [])
        columns = ["rank", "neuron", "l1", "l2", "objective", "cross_entropy", "f1", "f_beta", "iou", "n_nonzero"]
        rows = [tuple(row[name].item() for name in columns) for row in self.leaderboard_]
        diverged = int(self.leaderboard_["diverged"].sum())
        notes = [f"scored on the {self.selection_data_} data", f"{diverged} diverged" if diverged else ""]
        return table(f"{self!r}: {len(rows)} candidates, best first", columns, rows, notes=notes, most=5)

    def _threshold(self) -> np.float32:
        """Probability above which a sample is called positive."""
        if isinstance(self.threshold, str) and self.threshold == "selected":
            # The next number below, so that a probability exactly on it is called, as in the leaderboard.
            below: np.float32 = np.nextafter(np.float32(self.leaderboard_["threshold"][0]), np.float32(0))
            return below
        fixed = number("threshold", self.threshold)
        if not 0 <= fixed <= 1:
            raise ArgumentError(f"threshold: got {fixed}; accepted: 'selected', or a probability, 0 to 1")
        return np.float32(fixed)

    def model(
        self, top_k: int = 1, *, feature_names: Sequence[str] | None = None, order: Sequence[int] | None = None
    ) -> ProxFitModel:
        """The best candidates as one frozen model.

        Parameters
        ----------
        top_k : int
            Members: first the best candidate of each meta-neuron, in order of rank, so that the spread is between
            learners (R17); then the remaining candidates in order of rank. Diverged ones never.
        feature_names : sequence of str, optional
            Default: those of the data frame of the fit, else f0, f1, ...
        order : sequence of int, optional
            Candidates to take members from, best first, where another ranking than the leaderboard's is wanted.
            Default: all, in the leaderboard's order.

        Raises
        ------
        ArgumentError
            Not fitted; ``top_k`` outside 1 to the number of candidates that did not diverge (of those in ``order``);
            a candidate in ``order`` that is none, that comes twice, or that diverged.
        """
        self._require_fit("model")
        known = getattr(self, "feature_names_in_", [f"f{i}" for i in range(self.n_features_in_)])
        names = tuple(known if feature_names is None else feature_names)
        table = self.leaderboard_ if order is None else _rows(self.leaderboard_, order)
        return ensemble(self.search_, table, top_k, names)


def _rows(table: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """The leaderboard's rows of some candidates, in their order."""
    row_of = {int(row["candidate"]): place for place, row in enumerate(table) if not row["diverged"]}
    wanted = list(order)
    if not wanted or len(set(wanted)) < len(wanted) or not row_of.keys() >= set(wanted):
        raise ArgumentError(f"order: got {wanted}; accepted: distinct candidates that did not diverge, at least one")
    chosen: NDArray[Any] = table[[row_of[candidate] for candidate in wanted]]
    return chosen


def _log_odds(probability: Any) -> Any:
    """ln(p / (1 - p)) in float64, finite for every float32 in [0, 1]."""
    clipped = np.clip(np.asarray(probability, np.float64), 2.0**-126, 1 - 2.0**-25)
    return np.log(clipped) - np.log1p(-clipped)
