"""The command line: the same steps as the functions of ``import vesu``.

Exit codes: 0 done, 2 a :class:`VesuError` (one line on standard error, no traceback), 3 a run whose time was over
before its work (its state is saved, its zip valid), 4 a distillation that was due and did not run (the zip in reserve
is valid, the verdict is NO_GO_SUBMISSION), 130 interrupted, 143 terminated.
"""

import json
import os
import sys
from argparse import ArgumentParser as Parser
from argparse import Namespace as Arguments
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from vesu import __version__
from vesu.errors import ArgumentError, DistillationNotExecuted, VesuError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import numpy as np
    from numpy.typing import NDArray

    from vesu.config import RunConfig
    from vesu.segmentation import Segmentation

Commands: TypeAlias = "_SubParsersAction[Parser]"

__all__ = ["main"]

STOPPED = 3
NOT_DISTILLED = 4

# Imports of the stages sit inside the commands, so that `vesu --help` answers at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Examples
    --------
    >>> main(["--version"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except VesuError as error:
        print(f"vesu: {type(error).__name__}: {error}", file=sys.stderr)
        return NOT_DISTILLED if isinstance(error, DistillationNotExecuted) else 2
    except KeyboardInterrupt:
        print("vesu: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) went away
        sys.stderr.close()
        return 0
    except OSError as error:  # our own output cannot be written
        print(f"vesu: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="vesu",
        description="Find papyrus surfaces in 3-D X-ray CT of the Herculaneum scrolls.",
        epilog="New here? `vesu demo` generates a small data set, runs everything on it and leaves a submission.zip "
        "and a report.html to look at.",
    )
    parser.add_argument("--version", action="version", version=f"vesu {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    demo = _command(commands, "demo", _demo, "generate a small data set and run the whole pipeline on it")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for data and results (default: demo)")
    demo.add_argument("--size", type=int, default=128, help="voxels along each axis of a volume (default: 128)")
    demo.add_argument("--train", type=int, default=8, help="labelled volumes (default: 8)")
    demo.add_argument("--test", type=int, default=2, help="volumes to segment (default: 2)")
    _add_config(demo)

    run = _command(commands, "run", _run, "train on a competition folder, segment its test volumes, package the zip")
    run.add_argument(
        "data",
        nargs="?",
        type=Path,
        help="folder with train_images/, train_labels/, test_images/; "
        "default: looked for under /kaggle/input in every mount style",
    )
    run.add_argument("--out", type=Path, default=Path("run"), help="run folder (default: run)")
    run.add_argument("--cache", type=Path, help="folder of decoded volumes and features (default: OUT/cache)")
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
    _add_config(run)

    find = _command(commands, "discover", _discover, "list pairs, tests and orphans of a data folder as JSON")
    find.add_argument("data", nargs="?", type=Path, help="data folder (default: looked for under /kaggle/input)")

    check = _command(commands, "preflight", _preflight, "check a data folder before any long work")
    check.add_argument("data", nargs="?", type=Path, help="data folder (default: looked for under /kaggle/input)")
    check.add_argument("--work-dir", type=Path, default=Path(), help="where results would be written (default: .)")
    check.add_argument("--fraction", type=float, default=0.05, help="share of files decoded whole (default: 0.05)")
    check.add_argument("--gpu", action="store_true", help="also require a GPU that really runs a kernel")

    cut = _command(commands, "segment", _segment, "segment one CT volume with a trained model or a historical scorer")
    cut.add_argument("volume", type=Path, help="multipage TIFF")
    cut.add_argument("--model", type=Path, help="run folder that holds model.npz and model.json")
    cut.add_argument("--out", type=Path, required=True, help="mask to write, a TIFF of 0/1")
    cut.add_argument(
        "--probability", type=Path, help="also write the float32 probability (of a scorer: its score) as a TIFF"
    )
    _add_config(cut, "historical scorer in the place of --model: nx46 or nx47")

    zipped = _command(commands, "check-submission", _check_submission, "say whether the competition would take a zip")
    zipped.add_argument("zip", type=Path, help="submission.zip")
    zipped.add_argument("--test-images", type=Path, help="folder of the test volumes whose ids and shapes must match")

    scored = _command(commands, "score", _score, "score masks against labels as the competition does")
    scored.add_argument("prediction", type=Path, help="mask (TIFF), or a folder or zip of ID.tif")
    scored.add_argument("label", type=Path, help="label (TIFF), or a folder of ID.tif")
    scored.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")
    scored.add_argument(
        "--unmatched", type=Path, metavar="FILE", help="also write the places of unmatched features (JSON; one pair)"
    )
    scored.add_argument("--tolerance", type=float, default=2.0, help="of the surface Dice, in voxels (default: 2)")
    scored.add_argument("--voi-alpha", type=float, default=0.3, help="steepness of the VOI's score (default: 0.3)")
    scored.add_argument("--ignore-label", type=int, default=2, help="label value that counts nowhere (default: 2)")

    report = _command(commands, "report", _report, "write the HTML report of a run folder again")
    report.add_argument("run", type=Path, help="run folder")
    report.add_argument("--out", type=Path, help="file to write (default: RUN/report.html)")

    end = _command(commands, "post-mortem", _post_mortem, "say how a run ended, from its folder alone, as JSON")
    end.add_argument("run", type=Path, help="run folder, of a killed run too")

    ledger = commands.add_parser("ledger", help="evidence of a run", description="Work with a run's event log.")
    ledger_commands = ledger.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _add_ledger(ledger_commands)

    teacher = commands.add_parser("teacher", help="frozen models to distil", description="Work with frozen teachers.")
    _add_teacher(teacher.add_subparsers(required=True, metavar="COMMAND", title="commands"))
    return parser


def _command(commands: Commands, name: str, function: Callable[[Arguments], None], text: str) -> Parser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=function)
    return parser


def _add_ledger(commands: Commands) -> None:
    check = _command(commands, "verify", _ledger_verify, "check a log: every record, link and the Merkle root")
    check.add_argument("log", nargs="?", type=Path, help="events.jsonl; may be left out with --proof")
    check.add_argument("--proof", type=Path, help="check this proof too, as `vesu ledger prove` printed it")
    check.add_argument(
        "--head",
        type=Path,
        action="append",
        default=[],
        help="a tree head that log and proof must agree with, as `vesu ledger head` printed it; may be repeated",
    )

    head = _command(commands, "head", _ledger_head, "print a log's tree head as C2SP tlog-checkpoint text")
    head.add_argument("log", type=Path, help="events.jsonl")
    head.add_argument("--size", type=int, help="over the first SIZE records (default: all)")
    head.add_argument("--origin", default="vesu/run", help="which log this is (default: vesu/run)")

    prove = _command(commands, "prove", _ledger_prove, "print a proof (RFC 9162) about a log as JSON")
    prove.add_argument("log", type=Path, help="events.jsonl")
    about = prove.add_mutually_exclusive_group(required=True)
    about.add_argument("--record", type=int, metavar="INDEX", help="that record INDEX, from 0, is in the log")
    about.add_argument("--since", type=int, metavar="SIZE", help="that the log goes on from its first SIZE records")
    prove.add_argument("--size", type=int, help="of the log as it was with SIZE records (default: all)")


def _add_teacher(commands: Commands) -> None:
    listed = _command(commands, "list", _teacher_list, "list the teachers of a folder, and what is refused and why")
    listed.add_argument("folder", type=Path, help="folder of teachers, or one teacher")

    check = _command(commands, "check", _teacher_check, "load every teacher of a folder and let it answer once")
    check.add_argument("folder", type=Path, help="folder of teachers, or one teacher")
    check.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")

    made = _command(commands, "convert", _teacher_convert, "make a teacher's folder of a file of weights, in a sandbox")
    made.add_argument("source", type=Path, help="checkpoint (.pt, .pth, .ckpt), TorchScript, .keras, .weights.h5, ...")
    made.add_argument("folder", type=Path, help="folder to make")
    made.add_argument("--spec", type=Path, metavar="FILE", help="JSON with members of teacher.json (docs/teachers.md)")
    made.add_argument("--key", help="which of several sets of tensors in a checkpoint, such as state_dict")


def _add_config(parser: Parser, pipeline: str = "vesu (default), or a historical scorer: nx46, nx47") -> None:
    parser.add_argument("--pipeline", metavar="NAME", help=pipeline)
    parser.add_argument("--config", type=Path, help="TOML file (docs/configuration.md lists the keys)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, such as search.meta_neurons=12; may be repeated",
    )


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


def _config(arguments: Arguments) -> "RunConfig":
    from vesu.config import load_config

    given = {
        "pipeline": arguments.pipeline,
        "student.use": getattr(arguments, "student", None),
        "teachers.folder": getattr(arguments, "teachers", None),
    }
    chosen = [
        f"{key}={json.dumps(str(value), ensure_ascii=False)}" for key, value in given.items() if value is not None
    ]
    return load_config(arguments.config, overrides=[*arguments.set, *chosen])


def _demo(arguments: Arguments) -> None:
    from vesu.data.phantom import write_dataset

    _config(arguments)  # refuse before the volumes are generated
    for name, least in (("size", 16), ("train", 2), ("test", 1)):
        if getattr(arguments, name) < least:
            raise ArgumentError(f"--{name}: got {getattr(arguments, name)}; accepted: {least} or more")
    print(f"generating {arguments.train} labelled and {arguments.test} test volumes of {arguments.size}^3 ...")
    data = write_dataset(
        arguments.out / "data", n_train=arguments.train, n_test=arguments.test, shape=(arguments.size,) * 3
    )
    _execute(arguments, data, "auto", restart=True)  # its volumes were made anew just now


def _run(arguments: Arguments) -> None:
    _execute(
        arguments,
        arguments.data,
        "none" if arguments.quiet else "auto",
        cache=arguments.cache,
        resume=arguments.resume_from_checkpoint,
        restart=arguments.restart,
        retrain_changed=arguments.retrain_changed,
    )


def _execute(arguments: Arguments, data: Path | None, display: Literal["auto", "none"], **how: Any) -> None:
    import vesu

    result = vesu.run(data, arguments.out, config=_config(arguments), display=display, **how)
    print(result)
    if not result.finished:
        raise SystemExit(STOPPED)


def _discover(arguments: Arguments) -> None:
    from vesu.data.discover import discover

    print(json.dumps(discover(arguments.data).to_json(), indent=2))


def _preflight(arguments: Arguments) -> None:
    from vesu.data.discover import discover
    from vesu.data.preflight import preflight

    report = preflight(
        discover(arguments.data), fraction=arguments.fraction, work_dir=arguments.work_dir, need_gpu=arguments.gpu
    )
    for finding in report.findings:
        place = f" {finding.path}:" if finding.path else ""
        print(f"{finding.severity:9} {finding.code}:{place} {finding.message}")
    report.raise_if_blocked()
    print(f"ok: {report.checked_pairs} pairs and {report.checked_tests} test volumes decoded")


def _segment(arguments: Arguments) -> None:
    from vesu.data.volumes import write_volume

    if arguments.model is not None:
        if arguments.pipeline not in (None, "vesu") or arguments.config or arguments.set:
            raise ArgumentError("--model: got it beside --pipeline, --config or --set; accepted: a model knows its own")
        probability, result = _by_model(arguments)
    else:
        probability, result = _by_scorer(arguments)
    write_volume(arguments.out, result.mask)
    if arguments.probability:
        write_volume(arguments.probability, probability)
    low, high = result.thresholds.low, result.thresholds.high
    print(
        f"{arguments.out}: {result.diagnostics.ink_ratio_global:.4f} of the voxels are surface "
        f"(thresholds {low:.3f} / {high:.3f})"
    )


def _by_model(arguments: Arguments) -> "tuple[NDArray[np.float32], Segmentation]":
    from vesu.data.volumes import read_volume
    from vesu.run.model import SurfaceModel
    from vesu.segmentation import segment

    _check_outputs(arguments.volume, arguments.out, arguments.probability)
    model = SurfaceModel.load(arguments.model)
    prediction = model.predict(read_volume(arguments.volume))
    result = segment(prediction.probability, model.segment_config, uncertainty=prediction.uncertainty)
    return prediction.probability, result


def _by_scorer(arguments: Arguments) -> "tuple[NDArray[np.float32], Segmentation]":
    from vesu.data.volumes import read_volume
    from vesu.run.baseline import segment_volume

    config = _config(arguments)
    if config.pipeline == "vesu":
        raise ArgumentError("--model: got none; accepted: a run folder, or --pipeline nx46 or nx47 in its place")
    _check_outputs(arguments.volume, arguments.out, arguments.probability)
    return segment_volume(read_volume(arguments.volume), config)


def _check_outputs(source: Path, *targets: Path | None) -> None:
    """Before any work: targets that can be written, and that are neither the input nor each other."""
    seen = [source.resolve()]
    for target in targets:
        if target is None:
            continue
        if target.resolve() in seen or (target.exists() and source.exists() and target.samefile(source)):
            raise ArgumentError(f"--out, --probability: got {target} twice; accepted: files of their own")
        if target.is_dir() or not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
            raise ArgumentError(f"--out, --probability: got {target}; accepted: a file in a folder that can be written")
        seen.append(target.resolve())


def _check_submission(arguments: Arguments) -> None:
    from vesu.submission import check_submission

    report = check_submission(arguments.zip, arguments.test_images)
    for member in report.members:
        print(f"{member.name}  {'x'.join(map(str, member.shape))}  surface {member.ink_ratio:.4f}")
    print(f"valid: {len(report.members)} masks, {report.n_bytes} bytes, sha256 {report.sha256}")


def _score(arguments: Arguments) -> None:
    from vesu.data.volumes import read_volume
    from vesu.scoring import ScoreReport, ScoreSummary, score, score_many

    prediction, label, places = arguments.prediction, arguments.label, arguments.unmatched
    options = {name: getattr(arguments, name) for name in ("tolerance", "voi_alpha", "ignore_label")}
    found: ScoreReport | ScoreSummary
    if label.is_dir():
        if places is not None:
            raise ArgumentError(f"--unmatched: got {places} beside folders; accepted: one prediction and one label")
        found = score_many(prediction, label, **options)
    else:
        volumes = read_volume(prediction), read_volume(label)
        found = score(*volumes, **options)
        if places is not None:
            _write_unmatched(places, *volumes, options["ignore_label"])
    print(json.dumps(found.to_json(), indent=2) if arguments.json else found)


def _write_unmatched(path: Path, prediction: "NDArray[Any]", label: "NDArray[Any]", ignore_label: int | None) -> None:
    import warnings

    from vesu.data.storage import write_json_atomic
    from vesu.scoring import unmatched_features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the score has said it
        found = unmatched_features(prediction, label, ignore_label=ignore_label)
    write_json_atomic(path, {"shape": list(label.shape), **found.to_json()})


def _post_mortem(arguments: Arguments) -> None:
    from vesu.run.postmortem import examine

    print(json.dumps(examine(arguments.run), indent=2))


def _report(arguments: Arguments) -> None:
    from vesu.report import write_report

    print(write_report(arguments.run, arguments.out))


def _ledger_verify(arguments: Arguments) -> None:
    from vesu.ledger.commands import verify

    for line in verify(arguments.log, arguments.proof, arguments.head):
        print(line)


def _ledger_head(arguments: Arguments) -> None:
    from vesu.ledger import checkpoint

    print(checkpoint(arguments.log, arguments.size, origin=arguments.origin), end="")


def _ledger_prove(arguments: Arguments) -> None:
    from vesu.ledger.commands import prove

    print(json.dumps(prove(arguments.log, arguments.record, arguments.since, arguments.size).to_json(), indent=2))


def _teacher_list(arguments: Arguments) -> None:
    from vesu.distill.teacher_commands import list_teachers

    for line in list_teachers(arguments.folder):
        print(line)


def _teacher_check(arguments: Arguments) -> None:
    from vesu.distill.teacher_commands import check_teachers

    for line in check_teachers(arguments.folder, arguments.device):
        print(line, flush=True)


def _teacher_convert(arguments: Arguments) -> None:
    from vesu.distill.teacher_commands import convert

    for line in convert(arguments.source, arguments.folder, arguments.spec, arguments.key):
        print(line)
