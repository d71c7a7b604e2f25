"""scikit-learn's conventions for an estimator, kept without needing scikit-learn."""

import importlib
import inspect
import sys
import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu.errors import ArgumentError

__all__ = ["EstimatorConventions", "NotFittedError"]


class NotFittedError(ArgumentError, AttributeError):
    """A method that needs a fit, called before one; also scikit-learn's error of that name where it is loaded."""


def not_fitted(name: str, method: str) -> NotFittedError:
    """The error to raise; whoever catches scikit-learn's own class has loaded it, so nothing is imported here."""
    exceptions = sys.modules.get("sklearn.exceptions")
    kind: type[NotFittedError] = NotFittedError
    if exceptions is not None:
        kind = type("NotFittedError", (NotFittedError, exceptions.NotFittedError), {})
    return kind(f"{method}: got an instance of {name} that is not fitted; accepted: after fit")


class EstimatorConventions:
    """Parameters by name, feature names, tags and errors as scikit-learn's tools expect them."""

    _estimator_type = "classifier"
    n_features_in_: int

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments by name; an unknown name is an ArgumentError."""
        known = self._parameter_names()
        for name, value in params.items():
            if name not in known:
                raise ArgumentError(f"set_params: got {name!r}; accepted: {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        given = {name: repr(value) for name, value in self.get_params().items()}
        shown = (f"{name}={value}" for name, value in given.items() if value != repr(defaults[name].default))
        return f"{type(self).__name__}({', '.join(shown)})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools ask of an estimator; only they call it, so only here scikit-learn is imported."""
        utils = importlib.import_module("sklearn.utils")
        return utils.Tags(
            estimator_type="classifier",
            target_tags=utils.TargetTags(required=True),
            transformer_tags=None,
            regressor_tags=None,
            classifier_tags=utils.ClassifierTags(multi_class=False),
            input_tags=utils.InputTags(),
        )

    def _require_fit(self, method: str) -> None:
        if not hasattr(self, "leaderboard_"):
            raise not_fitted(type(self).__name__, method)

    def _set_feature_names(self, X: ArrayLike) -> None:
        names = feature_names(X)
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _check_features(self, X: ArrayLike, n_features: int) -> None:
        """The columns must be those of the fit, by number and, where both know them, by name."""
        fitted, found, name = getattr(self, "feature_names_in_", None), feature_names(X), type(self).__name__
        if fitted is not None and found is None:
            text = f"X does not have valid feature names, but {name} was fitted with feature names"
            warnings.warn(text, UserWarning, stacklevel=4)
        elif fitted is None and found is not None:
            text = f"X has feature names, but {name} was fitted without feature names"
            warnings.warn(text, UserWarning, stacklevel=4)
        elif fitted is not None and found is not None and not np.array_equal(fitted, found):
            raise ArgumentError(_names_differ(list(fitted), list(found)))
        if n_features != self.n_features_in_:
            text = f"X has {n_features} features, but {name} is expecting {self.n_features_in_} features as input"
            raise ArgumentError(f"X: {text}")


def feature_names(X: ArrayLike) -> NDArray[Any] | None:
    """Column names of a data frame, where they are texts; shape (n_features,) of object."""
    columns = getattr(X, "columns", None)
    if columns is None:
        return None
    names = list(columns)
    texts = [isinstance(name, str) for name in names]
    if any(texts) and not all(texts):
        raise ArgumentError(f"X: got column names of several types ({names[:5]}); accepted: all texts, or none")
    return np.array(names, object) if names and all(texts) else None


def _names_differ(fitted: list[str], found: list[str]) -> str:
    lines = ["The feature names should match those that were passed during fit."]
    for title, names in (
        ("Feature names unseen at fit time:", sorted(set(found) - set(fitted))),
        ("Feature names seen at fit time, yet now missing:", sorted(set(fitted) - set(found))),
    ):
        if names:
            lines += [title, *(f"- {name}" for name in names[:5]), *(["- ..."] if len(names) > 5 else [])]
    if len(lines) == 1:
        lines.append("Feature names must be in the same order as they were in fit.")
    return "\n".join(lines) + "\n"
