"""Prox-fit: elastic-net logistic regression over a grid of candidates, all advanced in one pass (R11-R13, R17)."""

from vesu.grid_search.estimator import ElasticNetLogisticGrid, IterationRecord
from vesu.grid_search.model import ProxFitModel
from vesu.grid_search.selection import SelectionWeights

__all__ = ["ElasticNetLogisticGrid", "IterationRecord", "ProxFitModel", "SelectionWeights"]
