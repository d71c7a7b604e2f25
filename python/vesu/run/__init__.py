"""The run: the only part of vesu that knows the whole staircase.

``vesu.run`` is the function below; its neighbours are reached by ``from vesu.run.pipeline import ...``.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vesu.config import RunConfig
    from vesu.run.pipeline import RunResult

__all__ = ["resume", "run"]


def run(
    data: str | Path | None = None,
    out: str | Path = "run",
    *,
    config: "RunConfig | None" = None,
    display: Literal["auto", "tqdm", "none"] = "auto",
    cache: str | Path | None = None,
    resume: str | Path | None = None,
    restart: bool = False,
    retrain_changed: bool = False,
    phase: Literal["all", "search"] = "all",
    masks: str | Path | None = None,
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
    resume : "latest" or path, optional
        Go on with the run whose checkpoint is found so: in the published model, in ``out``, in ``out/results.zip``, or
        at the path. Weights, masks and zip come out as those of an uninterrupted run, bit for bit (R37).
    restart : bool
        Give up an unfinished run in ``out``, which is otherwise refused.
    retrain_changed : bool
        With ``resume``: where settings or data differ from the checkpoint's, do the work again that depends on them,
        instead of refusing. The log says what is done again.
    phase : {"all", "search"}
        ``"search"`` ends when the model is there: :mod:`vesu.run.parts` makes the masks, on as many machines as there
        are, and a last session with ``masks`` goes on.
    masks : path, optional
        Folder of :func:`vesu.run.parts.merge`: masks that were made with this very model of these very volumes are
        taken, after their hashes were checked, instead of being made again.

    Returns
    -------
    RunResult
        Of a session that ran out of time too (``result.finished`` is False then): its zip is valid.

    Raises
    ------
    DataError, PreflightError
        Nothing usable was found, or preflight found something that blocks; ``out`` holds an unfinished run.
    ResumeIncompatible
        ``resume`` with other settings or data; the message names each field, old and new.
    DistillationNotExecuted
        A student was due (``config.student``), and was not distilled: no usable teacher, no torch, or a log that does
        not prove it. The zip in reserve stays valid, ``summary.json`` says ``NO_GO_SUBMISSION``.
    KeyboardInterrupt, SystemExit
        SIGINT or SIGTERM came; a checkpoint was written before. Under ``torchrun`` every process but the first leaves
        by ``SystemExit(0)`` when the run is over.
    VesuError
        Anything else that went wrong, with the file or argument named; ``failure.json`` is left in ``out``.

    Notes
    -----
    The result does not depend on the number of threads, nor on the number of processes that ``torchrun`` started to
    share the search (docs/ranks.md), nor on what is in the cache, nor on how many sessions it took
    (R09, R33-R38, R50-R54). The session's time limit is ``config.time``; docs/long-runs.md tells the whole story.
    """
    from vesu.config import RunConfig
    from vesu.run.pipeline import execute
    from vesu.run.ranks import joined

    settings, (where, merged) = config or RunConfig(), (None if path is None else Path(path) for path in (cache, masks))
    with joined(settings) as ranks:
        if ranks is not None and not ranks.is_first:
            from vesu.run.ranks_student import serve_run

            serve_run(ranks, settings, where or Path(out, "cache"))
            raise SystemExit(0)  # the run is the first process'
        how = (display, where, resume, restart, retrain_changed, phase, merged, ranks)
        with nullcontext() if ranks is None else ranks.leading():
            return execute(data, Path(out), settings, *how)


def resume(
    data: str | Path | None = None,
    out: str | Path = "run",
    *,
    config: "RunConfig | None" = None,
    display: Literal["auto", "tqdm", "none"] = "auto",
    cache: str | Path | None = None,
    checkpoint: str | Path = "latest",
) -> "RunResult":
    """Go on with an interrupted run: :func:`vesu.run` with ``resume``.

    Parameters
    ----------
    data, out, config, display, cache
        As for :func:`vesu.run`, and as they were for the run.
    checkpoint : "latest" or path
        Where to go on from.

    Returns
    -------
    RunResult

    Raises
    ------
    VesuError
        As :func:`vesu.run` does.
    """
    return run(data, out, config=config, display=display, cache=cache, resume=checkpoint)
