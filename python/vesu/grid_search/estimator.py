"""The search as an estimator: fit a grid, rank it, hand out a model (R11-R14, R17)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu.errors import ArgumentError
from vesu.grid_search.checks import (
    class_weights,
    classes_of,
    integer,
    labels_of,
    samples_of,
    validation_samples,
)
from vesu.grid_search.classifier import GridClassifier
from vesu.grid_search.epochs import EpochLoop, EpochSettings, OnEpoch
from vesu.grid_search.problem import parameters_of, pose
from vesu.grid_search.samples import AnySamples, Samples
from vesu.grid_search.search import OnIteration, Search, check_same
from vesu.grid_search.selection import SelectionWeights
from vesu.grid_search.solver import OnEvent, choose_device
from vesu.grid_search.state import SearchState

__all__ = ["ElasticNetLogisticGrid"]

NAMES = ("X", "y", "gradient")
Draw: TypeAlias = Callable[[int], tuple[ArrayLike, ArrayLike, ArrayLike | None]]


class ElasticNetLogisticGrid(GridClassifier):
    """Elastic-net logistic regression for every candidate of meta_neurons x l1 x l2, advanced together.

    A candidate minimises, over t = (w, alpha, beta) and a free intercept b, ::

        mean_i v_i c_i logloss(y_i, sigmoid(x_i.w + x_i^2.alpha + g_i.beta + b)) + l1 |t|_1 + (l2 / 2) |t|^2

    on standardised features x and the spatial gradient magnitude g of each. v_i are the meta-neuron's own Poisson(1)
    bootstrap weights, c_i class weights.

    Parameters
    ----------
    meta_neurons : int
        Learners that differ in bootstrap weights and initialisation (R12).
    l1, l2 : sequence of float
        Penalty weights, each >= 0.
    max_iter : int
        Iterations of every candidate in each epoch; there is no early stop (R50) short of certified optima.
    learning_rate : float or "auto"
        Step length. A number is taken as it is; "auto" is ``min(0.08, 1 / (lipschitz_ + max(l2)))``, for which the
        objective never rises (up to a neuron's own bootstrap weights). See docs/grid_search.md.
    seed : int
        Of bootstrap, initialisation and mutation, 0 <= seed < 2**64.
    init_scale : float
        Standard deviation of the initial coefficients.
    class_weight : None, "balanced" or dict
        "balanced": n / (2 n_class); a dict maps a class to its weight, 1 where it names none.
    bootstrap : bool
        False gives every neuron each sample once: plain elastic net.
    selection : SelectionWeights, optional
        Objective that ranks the candidates; None is ``SelectionWeights()``.
    simd : None, "scalar", "neon", "avx2" or "avx512"
        Instruction-set path; None is VESU_SIMD, else the widest of the machine. Bits are reproducible on one path.
    n_threads : int, optional
        Threads; the result is the same bit for bit on any number.
    solver : {"ista", "fista", "prox_newton"}
        "ista" is the faithful proximal gradient method, "fista" its accelerated form, "prox_newton" goes on to the
        optimum of every candidate with a certificate. docs/grid_search.md says when each is the right one.
    tol : float
        Relative duality gap at which "prox_newton" calls a candidate solved.
    device : {"cpu", "cuda", "auto", "torch"}
        "cuda" and "torch" (torch on the CPU, for tests) need torch. "auto" takes CUDA if a kernel really runs there,
        else the CPU, and reports the fallback (R27).
    threshold : float or "selected"
        Probability above which :meth:`predict` says the positive class. 0.5 is the likelier class, as scikit-learn's
        users expect; "selected" is the best scanned threshold of the best candidate (R13). A model has its own.

    Attributes
    ----------
    candidates_ : structured array, shape (C,)
        candidate, neuron, l1, l2; candidate = (neuron * len(l1) + i) * len(l2) + j.
    coef_ : float64, shape (C, P)
        (w, alpha, beta) of the standardised features; P = 3F, or 2F without gradients.
    intercept_ : float64, shape (C,)
    diverged_ : bool, shape (C,)
        Candidates that blew up (objective not finite or ten times its start's): frozen, ranked last, never chosen.
    gap_ : float64, shape (C,)
        Relative duality gap on the training samples where the solver certifies it ("prox_newton"), else NaN; see
        :meth:`optimality_gap`.
    leaderboard_ : structured array, shape (C,)
        Best first; fields as in docs/grid_search.md.
    best_index_ : int
        Candidate of rank 1.
    selection_data_ : "validation" or "train"
        What the leaderboard was scored on.
    mean_, scale_ : float64, shape (F,)
        Of the first epoch's training data; a constant column has scale 1.
    lipschitz_ : float
        lambda_max(A' diag(c) A / n) / 4 over rows A = [x, x^2, g, 1] of the standardised training data.
    learning_rate_ : float
        The step of the first epoch.
    classes_ : array, shape (2,)
    n_iter_ : int
        Iterations of this candidates' grid in all epochs.
    n_epochs_ : int
    meta_neurons_ : int
        Neurons now, those grown since the first epoch included.
    n_features_in_ : int
    feature_names_in_ : object array, shape (F,)
        Only after a fit on a data frame.
    simd_path_, device_ : str

    Notes
    -----
    R11-R14, R50-R53. Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse
    problems", SIAM J. Imaging Sciences 2 (2009); Oza and Russell, "Online bagging and boosting", AISTATS 2001.
    Follows scikit-learn's estimator conventions, and passes its ``check_estimator``, without needing scikit-learn.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 3)).astype(np.float32)
    >>> y = X[:, 0] > 0.2
    >>> grid = ElasticNetLogisticGrid(meta_neurons=2, l1=(1e-3, 1e-2), l2=(1e-3,), max_iter=60).fit(X, y)
    >>> grid.coef_.shape, grid.score(X, y) > 0.9
    ((4, 6), True)
    """

    meta_neurons_: int

    def __init__(
        self,
        meta_neurons: int = 9,
        l1: Sequence[float] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        l2: Sequence[float] = (1e-4, 1e-3, 1e-2),
        max_iter: int = 120,
        learning_rate: float | Literal["auto"] = "auto",
        seed: int = 0,
        init_scale: float = 0.01,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        bootstrap: bool = True,
        selection: SelectionWeights | None = None,
        simd: str | None = None,
        n_threads: int | None = None,
        solver: Literal["ista", "fista", "prox_newton"] = "ista",
        tol: float = 1e-6,
        device: Literal["cpu", "cuda", "auto", "torch"] = "cpu",
        threshold: float | Literal["selected"] = 0.5,
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
        self.solver = solver
        self.tol = tol
        self.device = device
        self.threshold = threshold

    # ---- fitting

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gradient: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        gradient_val: ArrayLike | None = None,
        on_iteration: OnIteration | None = None,
        on_event: OnEvent | None = None,
        state: SearchState | None = None,
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
        on_event : callable, optional
            Called as ``on_event(name, fields)`` with ``GPU_FALLBACK_DETECTED``.
        state : SearchState, optional
            Go on from here instead of from the start, on the same samples; the result is the same bit for bit (R37).

        Returns
        -------
        self

        Raises
        ------
        ArgumentError
            A parameter out of range, shapes that differ, NaN or infinities (count and first position), one class, a
            state of another search or of other samples, or every candidate diverged.
        MemoryLimitError
            A grid whose working memory is beyond 8 GiB; refused before allocating.
        """
        labels = labels_of("y", y)
        classes = classes_of("y", labels)
        train = samples_of(NAMES, X, labels, gradient, classes)
        validation = validation_samples(train, classes, X_val, y_val, gradient_val)
        search = self._begin(train, classes, state, on_event)
        search.advance(train, self._max_iter(), on_iteration)
        return self._publish(search, train, validation, classes, names=X)

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gradient: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        gradient_val: ArrayLike | None = None,
        on_iteration: OnIteration | None = None,
    ) -> Self:
        """One more epoch (R14): every candidate goes on from its own point on these samples, a fresh draw of the data.

        Standardisation, classes, step length and every parameter but ``max_iter`` and ``selection`` stay those of the
        first call, which is a :meth:`fit`; the solver's momentum does not live on.

        Parameters
        ----------
        X, y, gradient, X_val, y_val, gradient_val, on_iteration
            As in :meth:`fit`.
        classes : array, optional
            Both classes, for a first call whose ``y`` may lack one.

        Raises
        ------
        ArgumentError
            As :meth:`fit`; columns or classes other than the first epoch's.
        """
        first = not hasattr(self, "search_")
        labels = labels_of("y", y)
        if first:
            known = classes_of("y", labels) if classes is None else classes_of("classes", np.asarray(classes))
        else:
            known = self.classes_
        train = samples_of(NAMES, X, labels, gradient, known)
        if first:
            search = self._begin(train, known)
        else:
            self._check_epoch(X, train)
            search = self.search_.copy()
            search.begin_epoch(self.meta_neurons_)
        validation = validation_samples(train, known, X_val, y_val, gradient_val)
        search.advance(train, self._max_iter(), on_iteration)
        return self._publish(search, train, validation, known, names=X if first else None)

    def grow(self, meta_neurons: int) -> Self:
        """Have this many meta-neurons from the next epoch on (R12, R52): the old ones keep their numbers and go on.

        Raises
        ------
        ArgumentError
            Not fitted, or fewer than there are: a grid never shrinks (R50).
        """
        self._require_fit("grow")
        self.meta_neurons_ = integer("meta_neurons", meta_neurons, self.meta_neurons_, 1 << 20)
        return self

    def fit_epochs(
        self,
        draw: Draw,
        settings: EpochSettings | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        gradient_val: ArrayLike | None = None,
        on_iteration: OnIteration | None = None,
        on_event: OnEvent | None = None,
        state: SearchState | None = None,
    ) -> Self:
        """Search in epochs on fresh draws of the data, with evolution between them (R14, R15).

        Parameters
        ----------
        draw : callable
            ``draw(epoch)`` gives X, y and gradient (or None) of an epoch, from 0; the same each time it is asked.
        settings : EpochSettings, optional
            Default: one epoch, which is :meth:`fit`.
        X_val, y_val, gradient_val, on_iteration
            As in :meth:`fit`.
        on_event : callable, optional
            Called as ``on_event(name, fields)`` with EPOCH_START, EPOCH_END, EPOCHS_DONE and every decision between
            epochs: META_NEURONS_GROWN, LEARNING_RATE_ADAPTED, MUTATION_APPLIED, MUTATION_KEPT, MUTATION_ROLLED_BACK,
            WINNER_PRUNED, WINNER_PRUNE_REJECTED.
        state : SearchState, optional
            Go on from here, in whichever epoch it was taken; the result is the same bit for bit.

        Returns
        -------
        self

        Raises
        ------
        ArgumentError, MemoryLimitError
            As :meth:`fit`.
        """
        first = 0 if state is None else _checked(state).epoch
        X, y, gradient = draw(first)
        labels = labels_of("y", y)
        classes = classes_of("y", labels)
        train = samples_of(NAMES, X, labels, gradient, classes)
        validation = validation_samples(train, classes, X_val, y_val, gradient_val)

        def drawn(epoch: int) -> Samples:
            if epoch == first:
                return train
            X, y, gradient = draw(epoch)
            return samples_of(NAMES, X, labels_of("y", y), gradient, classes)

        return self._fit_epochs(drawn, settings, validation, classes, X, on_iteration, on_event, state)

    def fit_samples(
        self,
        draw: Callable[[int], AnySamples],
        settings: EpochSettings | None = None,
        *,
        validation: AnySamples | None = None,
        on_iteration: OnIteration | None = None,
        on_event: OnEvent | None = None,
        on_epoch: OnEpoch | None = None,
        state: SearchState | None = None,
    ) -> Self:
        """:meth:`fit_epochs` on samples that are checked already, of classes 0 and 1; several processes may hold them.

        Parameters
        ----------
        draw : callable
            ``draw(epoch)`` gives the samples of an epoch: :class:`~vesu.grid_search.samples.Samples`, or
            :class:`~vesu.grid_search.shared.SharedSamples`, with which the result has the same bits.
        settings, on_iteration, on_event, state
            As in :meth:`fit_epochs`.
        validation : samples, optional
            As ``draw`` gives them.
        on_epoch : callable, optional
            Called with an :class:`EpochEnd` after every epoch; gives the :class:`NextEpochs`, the settings from there
            on. A search that goes on from a state must be given the settings that held there.

        Returns
        -------
        self

        Raises
        ------
        ArgumentError, MemoryLimitError
            As :meth:`fit`; a solver or device that cannot use shared samples.
        """
        if state is not None:
            _checked(state)
        classes = np.array([0, 1], np.uint8)
        return self._fit_epochs(draw, settings, validation, classes, None, on_iteration, on_event, state, on_epoch)

    def optimality_gap(self, X: ArrayLike, y: ArrayLike, gradient: ArrayLike | None = None) -> NDArray[np.float64]:
        """How far each candidate is from its optimum on these samples: duality gap over objective, whatever the solver.

        Parameters
        ----------
        X, y, gradient : arrays
            The training samples, in their order: the bootstrap weights belong to it.

        Returns
        -------
        float64, shape (C,)
            An upper bound of (objective - optimum) / objective; 0 only at the optimum.
        """
        self._require_fit("optimality_gap")
        samples = samples_of(NAMES, X, labels_of("y", y), gradient, self.classes_)
        self._check_epoch(X, samples)
        return self.search_.relative_gap(samples)

    # ---- inside

    def _fit_epochs(
        self,
        draw: Callable[[int], AnySamples],
        settings: EpochSettings | None,
        validation: AnySamples | None,
        classes: NDArray[Any],
        names: ArrayLike | None,
        on_iteration: OnIteration | None,
        on_event: OnEvent | None,
        state: SearchState | None,
        on_epoch: OnEpoch | None = None,
    ) -> Self:
        train = draw(0 if state is None else state.epoch)
        for name, samples in (("y", train), ("y_val", validation)):
            if samples is not None and 0 in samples.class_sizes():
                raise ArgumentError(f"{name}: got class sizes {samples.class_sizes()}; accepted: samples of both")
        search = self._begin(train, classes, state, on_event)
        drawn = {search.epoch: train}  # the loop takes it out: only it may hold the samples of an epoch
        del train
        loop = EpochLoop(
            search,
            EpochSettings() if settings is None else settings,
            lambda epoch: drawn.pop(epoch) if epoch in drawn else draw(epoch),
            validation,
            self._selection(),
            self._max_iter(),
            on_iteration,
            on_event,
            on_epoch,
        )
        table, last = loop.run()
        return self._publish(search, last, validation, classes, names=names, table=table)

    def _begin(
        self,
        train: AnySamples,
        classes: NDArray[Any],
        state: SearchState | None = None,
        on_event: OnEvent | None = None,
    ) -> Search:
        """A search at its start, or where the state stands; whatever does not fit is refused before any work."""
        self._selection()
        fixed = parameters_of(self.get_params())
        device = choose_device(self.device, fixed["method"], on_event)
        class_weight = class_weights(self.class_weight, classes, train.class_sizes())
        if state is None:
            return Search.start(pose(fixed, train, class_weight, device, self.n_threads), self.n_threads)
        fixed |= {"device": device, "uses_gradient": train.has_gradient}
        if self.class_weight != "balanced":  # whose figures are the first epoch's
            fixed["class_weight"] = class_weight
        check_same(_checked(state), fixed, train.n_features)
        if state.iteration > self._max_iter():
            raise ArgumentError(f"state.iteration: got {state.iteration}; accepted: at most max_iter, {self.max_iter}")
        if state.samples != train.digest(self.n_threads):
            raise ArgumentError("state.samples: got a state of other samples; accepted: those that it was taken on")
        return Search.resume(state, self.n_threads)

    def _publish(
        self,
        search: Search,
        train: AnySamples,
        validation: AnySamples | None,
        classes: NDArray[Any],
        *,
        names: ArrayLike | None,
        table: NDArray[Any] | None = None,
    ) -> Self:
        """Set the fitted attributes, all at once and only after everything went well."""
        problem = search.problem
        if table is None:
            table = search.rank(train if validation is None else validation, self._selection())
        self.gap_ = search.relative_gap(train) if problem.method == "prox_newton" else np.full(len(table), np.nan)
        self.search_, self.leaderboard_, self.classes_ = search, table, classes
        self.best_index_ = int(table["candidate"][0])
        self.selection_data_ = "train" if validation is None else "validation"
        self.candidates_, self.diverged_ = search.candidates, search.diverged
        self.coef_, self.intercept_ = np.ascontiguousarray(search.params[:, :-1]), search.params[:, -1].copy()
        self.mean_, self.scale_, self.lipschitz_ = problem.mean, problem.scale, problem.lipschitz
        self.learning_rate_, self.n_features_in_ = problem.learning_rate, len(problem.mean)
        self.simd_path_, self.device_ = problem.simd, problem.device
        self.n_iter_, self.n_epochs_, self.meta_neurons_ = search.iteration, search.epoch + 1, search.n_neurons
        if names is not None:
            self._set_feature_names(names)
        return self

    def _selection(self) -> SelectionWeights:
        if self.selection is None:
            return SelectionWeights()
        if not isinstance(self.selection, SelectionWeights):
            raise ArgumentError(f"selection: got {type(self.selection).__name__}; accepted: SelectionWeights or None")
        return self.selection

    def _max_iter(self) -> int:
        return integer("max_iter", self.max_iter, 1, 1 << 40)

    def _check_epoch(self, X: ArrayLike, samples: Samples) -> None:
        """Samples of a later call must be of the first one's kind."""
        self._check_features(X, samples.x.shape[1])
        uses, given = self.search_.problem.uses_gradient, samples.gradient is not None
        if uses != given:
            raise ArgumentError(f"gradient: got {'an array' if given else 'None'}; accepted: as in the fit")


def _checked(state: object) -> SearchState:
    if not isinstance(state, SearchState):
        raise ArgumentError(f"state: got {type(state).__name__}; accepted: SearchState or None")
    return state
