"""The search as an estimator: fit a grid, rank it, hand out a model (R11-R13)."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.grid_search.checks import Samples, integer, labels_of, number, penalties_of, samples_of
from vesu.grid_search.model import ProxFitModel
from vesu.grid_search.selection import SelectionWeights, leaderboard

__all__ = ["ElasticNetLogisticGrid", "IterationRecord"]

DEFAULT_LEARNING_RATE = 0.08
CANDIDATE_DTYPE = np.dtype([("candidate", np.int64), ("neuron", np.int64), ("l1", np.float64), ("l2", np.float64)])


@dataclass(frozen=True, eq=False)
class IterationRecord:
    """What one iteration saw of every candidate (R51); arrays have shape (n_candidates,).

    All three are taken at the point where the iteration's gradient was taken, before its step.
    """

    iteration: int
    """Counts from 1."""
    max_iter: int
    loss: NDArray[np.float64]
    """The whole objective: weighted mean logistic loss plus penalty."""
    gradient_norm: NDArray[np.float64]
    """Norm of the proximal gradient mapping (t - t_next) / learning_rate with the intercept; 0 only at the optimum."""
    nonzero: NDArray[np.int64]
    """Coefficients that are not zero, without the intercept."""
    candidate_first: int
    candidate_last: int


class ElasticNetLogisticGrid:
    """Elastic-net logistic regression for every candidate of meta_neurons x l1 x l2, advanced together.

    A candidate minimises, over t = (w, alpha, beta) and a free intercept b,

        mean_i v_i c_i logloss(y_i, sigmoid(x_i.w + x_i^2.alpha + g_i.beta + b)) + l1 |t|_1 + (l2 / 2) |t|^2

    by ISTA (proximal gradient) on standardised features x and the spatial gradient magnitude g of each. v_i are the
    meta-neuron's own Poisson(1) bootstrap weights, c_i class weights.

    Parameters
    ----------
    meta_neurons : int
        Learners that differ in bootstrap weights and initialisation (R12).
    l1, l2 : sequence of float
        Penalty weights, each >= 0.
    max_iter : int
        Iterations of every candidate; there is no early stop (R50).
    learning_rate : float or "auto"
        Step length. A number is taken as it is; "auto" is min(0.08, 1 / (lipschitz_ + max(l2))), for which the
        objective never rises (up to a neuron's own bootstrap weights). See docs/search.md.
    seed : int
        Of bootstrap and initialisation, 0 <= seed < 2**64.
    init_scale : float
        Standard deviation of the initial coefficients.
    class_weight : None or "balanced"
        "balanced": n / (2 n_class).
    bootstrap : bool
        False gives every neuron each sample once: plain elastic net.
    selection : SelectionWeights
        Objective that ranks the candidates.
    simd : None, "scalar", "avx2" or "avx512"
        Instruction-set path; None is VESU_SIMD, else the widest of the machine. Bits are reproducible on one path.
    n_threads : int, optional
        Threads; the result is the same bit for bit on any number.

    Attributes
    ----------
    candidates_ : structured array, shape (C,)
        candidate, neuron, l1, l2; candidate = (neuron * len(l1) + i) * len(l2) + j.
    coef_ : float64, shape (C, P)
        (w, alpha, beta) of the standardised features; P = 3F, or 2F without gradients.
    intercept_ : float64, shape (C,)
    diverged_ : bool, shape (C,)
        Candidates that blew up (objective not finite or ten times its start's): frozen, ranked last, never chosen.
    leaderboard_ : structured array, shape (C,)
        Best first; fields as in docs/search.md.
    best_index_ : int
        Candidate of rank 1.
    selection_data_ : "validation" or "train"
        What the leaderboard was scored on.
    mean_, scale_ : float64, shape (F,)
        Of the training data; a constant column has scale 1.
    lipschitz_ : float
        lambda_max(A' diag(c) A / n) / 4 over rows A = [x, x^2, g, 1] of the standardised training data.
    learning_rate_ : float
        The step that was used.
    classes_ : array, shape (2,)
    n_iter_ : int
    n_features_in_ : int
    simd_path_ : str

    Notes
    -----
    R11-R13, R50-R53. Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse
    problems", SIAM J. Imaging Sciences 2 (2009); Oza and Russell, "Online bagging and boosting", AISTATS 2001.
    Follows scikit-learn's estimator conventions without needing scikit-learn.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 3)).astype(np.float32)
    >>> y = X[:, 0] > 0.2
    >>> grid = ElasticNetLogisticGrid(meta_neurons=2, l1=(1e-3, 1e-2), l2=(1e-3,), max_iter=60).fit(X, y)
    >>> grid.coef_.shape, bool(np.mean(grid.predict(X) == y) > 0.9)
    ((4, 6), True)
    """

    def __init__(
        self,
        meta_neurons: int = 9,
        l1: Sequence[float] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        l2: Sequence[float] = (1e-4, 1e-3, 1e-2),
        max_iter: int = 120,
        learning_rate: float | Literal["auto"] = DEFAULT_LEARNING_RATE,
        seed: int = 0,
        init_scale: float = 0.01,
        class_weight: Literal["balanced"] | None = None,
        bootstrap: bool = True,
        selection: SelectionWeights = SelectionWeights(),  # noqa: B008 - frozen
        simd: str | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.meta_neurons = meta_neurons
        self.l1 = l1
        self.l2 = l2
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.seed = seed
        self.init_scale = init_scale
        self.class_weight = class_weight
        self.bootstrap = bootstrap
        self.selection = selection
        self.simd = simd
        self.n_threads = n_threads

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {
            name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"
        }

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments by name; an unknown name is an ArgumentError."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ArgumentError(f"set_params: got {name!r}; accepted: {', '.join(known)}")
            setattr(self, name, value)
        return self

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gradient: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        gradient_val: ArrayLike | None = None,
        on_iteration: Callable[[IterationRecord], None] | None = None,
    ) -> Self:
        """Search the whole grid, then rank the candidates on the validation data, or on the training data without.

        Parameters
        ----------
        X : array, shape (n_samples, n_features)
            Raw features. C-ordered float32 is borrowed; anything else is copied once.
        y : array, shape (n_samples,)
            Any two classes; the larger of them is the positive one.
        gradient : array, shape of X, optional
            Raw spatial gradient magnitude of each feature; without it the g term is left out (P = 2F).
        X_val, y_val, gradient_val : arrays, optional
            Validation data, the same kinds.
        on_iteration : callable, optional
            Called with an :class:`IterationRecord` after every iteration.

        Returns
        -------
        self

        Raises
        ------
        ArgumentError
            A parameter out of range, shapes that differ, NaN or infinities (count and first position), one class, or
            every candidate diverged.
        MemoryLimitError
            A grid whose working memory is beyond 8 GiB; refused before allocating.
        """
        if not isinstance(self.selection, SelectionWeights):
            raise ArgumentError(f"selection: got {type(self.selection).__name__}; accepted: SelectionWeights")
        candidates = self._candidates()
        train = self._training_samples(X, y, gradient)
        validation = self._validation_samples(train, X_val, y_val, gradient_val)
        mean, scale = _core.prox_standardise(train.x, self.n_threads)
        self.mean_, self.scale_ = mean, scale
        self.n_features_in_ = train.x.shape[1]
        class_weight = self._class_weight(train)
        # This also refuses a gradient that is not finite, so that the steps need not look again.
        self.lipschitz_ = _core.prox_lipschitz(
            train.x, train.y, train.gradient, mean.tolist(), scale.tolist(), class_weight, self.n_threads
        )
        self.learning_rate_ = self._learning_rate(float(candidates["l2"].max()))
        solver = self._solver(train.gradient is not None, class_weight)
        self.simd_path_ = solver.simd
        self._iterate(solver, train, len(candidates), on_iteration)

        state = solver.state()
        params, self.n_iter_, self.diverged_ = state["params"], state["iteration"], state["diverged"]
        self.candidates_ = candidates
        self.coef_, self.intercept_ = np.ascontiguousarray(params[:, :-1]), params[:, -1].copy()
        self._rank(train if validation is None else validation)
        self.selection_data_ = "train" if validation is None else "validation"
        return self

    def predict_proba(self, X: ArrayLike, gradient: ArrayLike | None = None) -> NDArray[np.float32]:
        """Probabilities of both classes by the best candidate, float32 (n_samples, 2)."""
        positive, _ = self.model().predict_proba(
            np.asarray(X), None if gradient is None else np.asarray(gradient), n_threads=self.n_threads
        )
        return np.stack([1 - positive, positive], axis=1)

    def predict(self, X: ArrayLike, gradient: ArrayLike | None = None) -> NDArray[Any]:
        """Class of each sample by the best candidate at its own threshold."""
        threshold = np.float32(self.leaderboard_["threshold"][0])
        chosen: NDArray[Any] = self.classes_[(self.predict_proba(X, gradient)[:, 1] >= threshold).astype(int)]
        return chosen

    def model(self, top_k: int = 1, *, feature_names: Sequence[str] | None = None) -> ProxFitModel:
        """The best candidates as one frozen model.

        Parameters
        ----------
        top_k : int
            Members: first the best candidate of each meta-neuron, in order of rank, so that the spread is between
            learners (R17); then the remaining candidates in order of rank. Diverged ones never.
        feature_names : sequence of str, optional
            Default f0, f1, ...

        Raises
        ------
        ArgumentError
            Not fitted, or ``top_k`` outside 1 to the number of candidates that did not diverge.
        """
        if not hasattr(self, "leaderboard_"):
            raise ArgumentError("model: got an estimator that is not fitted; accepted: after fit")
        table = self.leaderboard_[~self.leaderboard_["diverged"]]
        top_k = integer("top_k", top_k, 1, len(table))
        _, first_of_neuron = np.unique(table["neuron"], return_index=True)
        is_later = np.ones(len(table), bool)
        is_later[first_of_neuron] = False
        members = table[np.argsort(is_later, kind="stable")[:top_k]]
        chosen = members["candidate"]
        names = tuple(f"f{i}" for i in range(self.n_features_in_)) if feature_names is None else tuple(feature_names)
        return ProxFitModel(
            coef=self.coef_[chosen],
            intercept=self.intercept_[chosen],
            mean=self.mean_,
            scale=self.scale_,
            feature_names=names,
            threshold=float(np.median(members["threshold"])),
            uses_gradient=self.coef_.shape[1] == 3 * self.n_features_in_,
            candidates=tuple(int(candidate) for candidate in chosen),
        )

    def _candidates(self) -> NDArray[Any]:
        neurons = integer("meta_neurons", self.meta_neurons, 1, 1 << 20)
        l1, l2 = penalties_of("l1", self.l1), penalties_of("l2", self.l2)
        if neurons * len(l1) * len(l2) > 1 << 20:
            raise ArgumentError(f"meta_neurons: got {neurons * len(l1) * len(l2)} candidates in all; accepted: 2**20")
        table = np.empty(neurons * len(l1) * len(l2), CANDIDATE_DTYPE)
        table["candidate"] = np.arange(len(table))
        grid = np.meshgrid(np.arange(neurons), l1, l2, indexing="ij")
        for name, values in zip(("neuron", "l1", "l2"), grid, strict=True):
            table[name] = values.ravel()
        return table

    def _training_samples(self, X: ArrayLike, y: ArrayLike, gradient: ArrayLike | None) -> Samples:
        labels = labels_of("y", y)
        self.classes_ = np.unique(labels)
        if len(self.classes_) != 2:
            shown = ", ".join(map(str, self.classes_[:5].tolist()))
            raise ArgumentError(f"y: got {len(self.classes_)} class(es) ({shown}); accepted: exactly two")
        return samples_of(("X", "y", "gradient"), X, labels == self.classes_[1], gradient)

    def _validation_samples(
        self, train: Samples, X: ArrayLike | None, y: ArrayLike | None, gradient: ArrayLike | None
    ) -> Samples | None:
        if X is None and y is None and gradient is None:
            return None
        if X is None or y is None or (gradient is None) != (train.gradient is None):
            given = "gradient_val, " if train.gradient is not None else ""
            raise ArgumentError(f"X_val: got a part of the validation data; accepted: X_val, {given}y_val, or none")
        labels = labels_of("y_val", y)
        if not np.array_equal(np.unique(labels), self.classes_):
            shown = ", ".join(map(str, np.unique(labels)[:5].tolist()))
            raise ArgumentError(f"y_val: got classes {shown}; accepted: both classes of y and no other")
        samples = samples_of(("X_val", "y_val", "gradient_val"), X, labels == self.classes_[1], gradient)
        if samples.x.shape[1] != train.x.shape[1]:
            got, wanted = samples.x.shape[1], train.x.shape[1]
            raise ArgumentError(f"X_val: got {got} columns; accepted: {wanted}, as in X")
        return samples

    def _class_weight(self, train: Samples) -> tuple[float, float]:
        if self.class_weight is None:
            return 1.0, 1.0
        if self.class_weight != "balanced":
            raise ArgumentError(f"class_weight: got {self.class_weight!r}; accepted: None or 'balanced'")
        negative, positive = (len(train.y) / (2 * size) for size in train.class_sizes())
        return negative, positive

    def _learning_rate(self, largest_l2: float) -> float:
        if self.learning_rate == "auto":
            return min(DEFAULT_LEARNING_RATE, 1.0 / (self.lipschitz_ + largest_l2))
        return number("learning_rate", self.learning_rate)

    def _solver(self, uses_gradient: bool, class_weight: tuple[float, float]) -> _core.ProxSolver:
        return _core.ProxSolver(
            self.mean_.tolist(),
            self.scale_.tolist(),
            uses_gradient,
            self.meta_neurons,
            penalties_of("l1", self.l1),
            penalties_of("l2", self.l2),
            self.learning_rate_,
            integer("seed", self.seed, 0, (1 << 64) - 1),
            number("init_scale", self.init_scale),
            bool(self.bootstrap),
            class_weight,
            self.simd,
        )

    def _iterate(
        self,
        solver: _core.ProxSolver,
        train: Samples,
        n_candidates: int,
        on_iteration: Callable[[IterationRecord], None] | None,
    ) -> None:
        max_iter = integer("max_iter", self.max_iter, 1, 1 << 40)
        for iteration in range(1, max_iter + 1):
            stats = solver.step(train.x, train.y, train.gradient, self.n_threads)
            if on_iteration is not None:
                on_iteration(IterationRecord(iteration, max_iter, *stats, 0, n_candidates - 1))

    def _rank(self, samples: Samples) -> None:
        if self.diverged_.all():
            raise ArgumentError(
                f"learning_rate: got {self.learning_rate_}, with which every candidate diverged "
                f"(lipschitz_ = {self.lipschitz_:.4g}); accepted: a smaller number, or 'auto'"
            )
        cross_entropy, reached = _core.prox_evaluate(
            samples.x,
            samples.y,
            samples.gradient,
            self.mean_.tolist(),
            self.scale_.tolist(),
            np.concatenate([self.coef_, self.intercept_[:, None]], axis=1),
            self.selection.thresholds().tolist(),
            self.simd,
            self.n_threads,
        )
        self.leaderboard_ = leaderboard(
            self.candidates_,
            cross_entropy,
            reached,
            samples.class_sizes(),
            np.count_nonzero(self.coef_, axis=1),
            self.coef_.shape[1],
            self.diverged_,
            self.selection,
        )
        self.best_index_ = int(self.leaderboard_["candidate"][0])
