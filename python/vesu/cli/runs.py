"""Runs: `vesu demo`, `run`, `report`, `post-mortem`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vesu.cli import parts
from vesu.cli.arguments import Arguments, Commands, Parser, add_config, command, config_of
from vesu.cli.gates import NO_GO
from vesu.errors import ArgumentError

if TYPE_CHECKING:
    from vesu.config import RunConfig

STOPPED = 3


def add(commands: Commands) -> None:
    """Declare the commands."""
    demo = command(commands, "demo", _demo, "generate a small data set and run the whole pipeline on it")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for data and results (default: demo)")
    demo.add_argument("--size", type=int, default=128, help="voxels along each axis of a volume (default: 128)")
    demo.add_argument("--train", type=int, default=8, help="labelled volumes (default: 8)")
    demo.add_argument("--test", type=int, default=2, help="volumes to segment (default: 2)")
    add_config(demo)

    run = command(commands, "run", _run, "train on a competition folder, segment its test volumes, package the zip")
    run.add_argument(
        "data",
        nargs="?",
        type=Path,
        help="folder with train_images/, train_labels/, test_images/; "
        "default: looked for under /kaggle/input in every mount style",
    )
    run.add_argument("--out", type=Path, default=Path("run"), help="run folder (default: run)")
    run.add_argument("--cache", type=Path, help="folder of decoded volumes and features (default: OUT/cache)")
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="look at everything that the run would need, say what is missing, run nothing (exit code 2 if blocked)",
    )
    run.add_argument("--quiet", action="store_true", help="no progress bar, no tree heads")
    run.add_argument(
        "--resume-from-checkpoint",
        nargs="?",
        const="latest",
        metavar="latest|PATH",
        help="go on with the interrupted run in OUT, or from the checkpoint at PATH",
    )
    run.add_argument("--restart", action="store_true", help="give up an unfinished run in OUT and begin anew")
    run.add_argument(
        "--retrain-changed",
        action="store_true",
        help="on resuming: do again what depends on changed settings or data, instead of refusing",
    )
    _add_student(run)
    run.add_argument(
        "--guided",
        type=Path,
        metavar="MASK",
        help="align the model to this mask TIFF of a test volume, named by its id",
    )
    run.add_argument(
        "--auto-tune", action="store_true", help="tune settings within [auto_tune]'s bounds, with rollback"
    )
    run.add_argument("--nonces", action="store_true", help="log each golden nonce: the most confident voxels (V3)")
    parts.add_options(run)
    add_config(run)

    report = command(commands, "report", _report, "write the HTML report of a run folder again")
    report.add_argument("run", type=Path, help="run folder")
    report.add_argument("--out", type=Path, help="file to write (default: RUN/report.html)")

    end = command(commands, "post-mortem", _post_mortem, "say how a run ended, from its folder alone, as JSON")
    end.add_argument("run", type=Path, help="run folder, of a killed run too")


def _add_student(parser: Parser) -> None:
    parser.add_argument(
        "--student",
        nargs="?",
        const="on",
        choices=("auto", "on", "off"),
        help="train a student from frozen teachers: auto (default) where teachers are present, on (also without a "
        "value) always, off never",
    )
    parser.add_argument(
        "--teachers", type=Path, metavar="DIR", help="folder of the teachers (default: `teachers` in or beside DATA)"
    )


def _demo(arguments: Arguments) -> None:
    from vesu.data.phantom import write_dataset

    config_of(arguments)  # refuse before the volumes are generated
    for name, least in (("size", 16), ("train", 2), ("test", 1)):
        if getattr(arguments, name) < least:
            raise ArgumentError(f"--{name}: got {getattr(arguments, name)}; accepted: {least} or more")
    print(f"generating {arguments.train} labelled and {arguments.test} test volumes of {arguments.size}^3 ...")
    data = write_dataset(
        arguments.out / "data", n_train=arguments.train, n_test=arguments.test, shape=(arguments.size,) * 3
    )
    _execute(arguments, data, "auto", restart=True)  # its volumes were made anew just now


def _run(arguments: Arguments) -> None:
    if parts.do_part(arguments):
        return
    if (config := config_of(arguments, may_be_dry=True)).dry_run:
        _dry_run(arguments, config)
        return
    _execute(
        arguments,
        arguments.data,
        "none" if arguments.quiet else "auto",
        cache=arguments.cache,
        resume=arguments.resume_from_checkpoint,
        restart=arguments.restart,
        retrain_changed=arguments.retrain_changed,
        phase=arguments.phase or "all",
        masks=arguments.masks,
    )


def _dry_run(arguments: Arguments, config: "RunConfig") -> None:
    from vesu.run.dry_run import dry_run

    for name in ("resume_from_checkpoint", "masks"):
        if getattr(arguments, name) is not None:
            word = name.replace("_", "-")
            raise ArgumentError(f"--{word}: got it for a dry run; accepted: a dry run of a new run")
    found = dry_run(arguments.data, arguments.out, config=config, cache=arguments.cache, restart=arguments.restart)
    print(found)
    found.raise_if_blocked()


def _execute(arguments: Arguments, data: Path | None, display: Literal["auto", "none"], **how: Any) -> None:
    import vesu

    result = vesu.run(data, arguments.out, config=config_of(arguments), display=display, **how)
    print(result)
    if not result.done:
        raise SystemExit(STOPPED)
    if result.finished and not result.go:
        raise SystemExit(NO_GO)


def _report(arguments: Arguments) -> None:
    from vesu.report import write_report

    print(write_report(arguments.run, arguments.out))


def _post_mortem(arguments: Arguments) -> None:
    from vesu.run.postmortem import examine

    print(json.dumps(examine(arguments.run), indent=2))
