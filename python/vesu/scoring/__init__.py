"""The competition's score of a mask against a label: topology, surface Dice, variation of information."""

from vesu.scoring.competition import score, score_many
from vesu.scoring.report import DimensionScore, ScoreReport, ScoreSummary, SurfaceScore, TopologyScore, VoiScore

__all__ = [
    "DimensionScore",
    "ScoreReport",
    "ScoreSummary",
    "SurfaceScore",
    "TopologyScore",
    "VoiScore",
    "score",
    "score_many",
]
