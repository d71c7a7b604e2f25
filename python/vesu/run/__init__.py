"""The run: the only part of vesu that knows the whole staircase.

``vesu.run`` is the function below; its neighbours are reached by ``from vesu.run.pipeline import ...``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vesu.config import RunConfig
    from vesu.run.pipeline import RunResult

__all__ = ["run"]


def run(
    data: str | Path | None = None,
    out: str | Path = "run",
    *,
    config: "RunConfig | None" = None,
    display: Literal["auto", "tqdm", "none"] = "auto",
    cache: str | Path | None = None,
) -> "RunResult":
    """Train on a competition folder, segment its test volumes, leave a valid ``submission.zip``.

    Parameters
    ----------
    data : path, optional
        Folder in the competition's layout; default: found as :func:`vesu.discover` does.
    out : path
        Run folder, made if missing. Outputs of an earlier run in it are replaced; other files stay.
    config : RunConfig, optional
        Default :class:`RunConfig()`: 135 candidates, 120 iterations.
    display : {"auto", "tqdm", "none"}
        Progress bar.
    cache : path, optional
        Folder of decoded volumes and features, default ``out/cache``; may be shared between runs.

    Returns
    -------
    RunResult

    Raises
    ------
    DataError, PreflightError
        Nothing usable was found, or preflight found something that blocks.
    VesuError
        Anything else that went wrong, with the file or argument named; ``failure.json`` is left in ``out``.

    Notes
    -----
    The result does not depend on the number of threads, nor on what is in the cache (R09, R34, R38, R50-R54).
    """
    from vesu.config import RunConfig
    from vesu.run.pipeline import execute

    return execute(data, Path(out), config or RunConfig(), display, None if cache is None else Path(cache))
