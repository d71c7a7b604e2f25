"""vesu: find papyrus surfaces in 3-D X-ray CT of the Herculaneum scrolls.

The steps of a run are functions here; ``vesu.run`` does them all. Modules load when first used, so that
``import vesu`` is quick and needs only numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vesu._core import __version__
from vesu.errors import VesuError
from vesu.run import resume, run

if TYPE_CHECKING:
    from vesu.config import RunConfig as RunConfig
    from vesu.config import load_config as load_config
    from vesu.data.discover import discover as discover
    from vesu.data.preflight import preflight as preflight
    from vesu.data.volumes import read_volume as read_volume
    from vesu.data.volumes import write_volume as write_volume
    from vesu.features import extract_features as extract_features
    from vesu.grid_search import ElasticNetLogisticGrid as ElasticNetLogisticGrid
    from vesu.run.model import SurfaceModel as SurfaceModel
    from vesu.scoring import ScoreReport as ScoreReport
    from vesu.scoring import score as score
    from vesu.scoring import score_many as score_many
    from vesu.scoring import score_sweep as score_sweep
    from vesu.segmentation import segment as segment
    from vesu.submission import check_submission as check_submission
    from vesu.submission import write_submission as write_submission

_HOME = {
    "ElasticNetLogisticGrid": "vesu.grid_search",
    "RunConfig": "vesu.config",
    "ScoreReport": "vesu.scoring",
    "SurfaceModel": "vesu.run.model",
    "check_submission": "vesu.submission",
    "discover": "vesu.data.discover",
    "extract_features": "vesu.features",
    "load_config": "vesu.config",
    "preflight": "vesu.data.preflight",
    "read_volume": "vesu.data.volumes",
    "score": "vesu.scoring",
    "score_many": "vesu.scoring",
    "score_sweep": "vesu.scoring",
    "segment": "vesu.segmentation",
    "write_submission": "vesu.submission",
    "write_volume": "vesu.data.volumes",
}
_MODULES = ("ablation", "baselines", "campaign", "config", "data", "ledger", "offline", "report", "scoring", "volume")

__all__ = ["VesuError", "__version__", *_HOME, *_MODULES, "resume", "run"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"vesu.{name}")
    else:
        raise AttributeError(f"module 'vesu' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
