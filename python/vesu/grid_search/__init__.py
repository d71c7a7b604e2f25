"""Prox-fit: elastic-net logistic regression over a grid of candidates, all advanced in one pass (R11-R15, R17)."""

from vesu.grid_search.epochs import EpochEnd, EpochSettings, NextEpochs, OnEpoch
from vesu.grid_search.estimator import ElasticNetLogisticGrid
from vesu.grid_search.interim import interim_model, interim_model_of
from vesu.grid_search.model import ProxFitModel, ensemble_order
from vesu.grid_search.samples import AnySamples, Samples
from vesu.grid_search.search import IterationRecord
from vesu.grid_search.selection import SelectionWeights
from vesu.grid_search.shared import Shards, SharedSamples
from vesu.grid_search.solver import choose_device
from vesu.grid_search.state import SearchState

__all__ = [
    "AnySamples",
    "ElasticNetLogisticGrid",
    "EpochEnd",
    "EpochSettings",
    "IterationRecord",
    "NextEpochs",
    "OnEpoch",
    "ProxFitModel",
    "Samples",
    "SearchState",
    "SelectionWeights",
    "Shards",
    "SharedSamples",
    "choose_device",
    "ensemble_order",
    "interim_model",
    "interim_model_of",
]
