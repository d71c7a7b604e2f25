"""The competition's score of a mask against a label: topology, surface Dice, variation of information."""

from vesu.scoring.competition import score, score_many
from vesu.scoring.report import DimensionScore, ScoreReport, ScoreSummary, SurfaceScore, TopologyScore, VoiScore
from vesu.scoring.sweep import score_sweep
from vesu.scoring.unmatched import FeaturePlaces, UnmatchedFeatures, unmatched_features

__all__ = [
    "DimensionScore",
    "FeaturePlaces",
    "ScoreReport",
    "ScoreSummary",
    "SurfaceScore",
    "TopologyScore",
    "UnmatchedFeatures",
    "VoiScore",
    "score",
    "score_many",
    "score_sweep",
    "unmatched_features",
]
