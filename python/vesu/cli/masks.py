"""Masks: `vesu segment`, `score`, `check-submission`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesu.cli.arguments import Arguments, Commands, add_config, command, config_of
from vesu.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vesu.segmentation import Segmentation


def add(commands: Commands) -> None:
    """Declare the commands."""
    cut = command(commands, "segment", _segment, "segment one CT volume with a trained model or a historical scorer")
    cut.add_argument("volume", type=Path, help="multipage TIFF")
    cut.add_argument(
        "--model",
        type=Path,
        help="run folder that holds model.npz and model.json; with --config, the file's ladder cuts its probability",
    )
    cut.add_argument("--out", type=Path, required=True, help="mask to write, a TIFF of 0/1")
    cut.add_argument(
        "--probability", type=Path, help="also write the float32 probability (of a scorer: its score) as a TIFF"
    )
    add_config(cut, "historical scorer in the place of --model: nx46 or nx47")

    zipped = command(commands, "check-submission", _check_submission, "say whether the competition would take a zip")
    zipped.add_argument("zip", type=Path, help="submission.zip")
    zipped.add_argument("--test-images", type=Path, help="folder of the test volumes whose ids and shapes must match")

    scored = command(commands, "score", _score, "score masks against labels as the competition does")
    scored.add_argument("prediction", type=Path, help="mask (TIFF), or a folder or zip of ID.tif")
    scored.add_argument("label", type=Path, help="label (TIFF), or a folder of ID.tif")
    scored.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")
    scored.add_argument(
        "--unmatched", type=Path, metavar="FILE", help="also write the places of unmatched features (JSON; one pair)"
    )
    scored.add_argument("--tolerance", type=float, default=2.0, help="of the surface Dice, in voxels (default: 2)")
    scored.add_argument("--voi-alpha", type=float, default=0.3, help="steepness of the VOI's score (default: 0.3)")
    scored.add_argument("--ignore-label", type=int, default=2, help="label value that counts nowhere (default: 2)")


def _segment(arguments: Arguments) -> None:
    from vesu.data.volumes import write_volume

    if arguments.model is not None:
        if arguments.pipeline not in (None, "vesu") or arguments.set:
            got = "--model: got it beside --pipeline or --set, and a model knows its own"
            raise ArgumentError(f"{got}; accepted: alone, or with --config for another ladder")
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
    from vesu.config import load_ladder
    from vesu.data.volumes import read_volume
    from vesu.run.model import SurfaceModel
    from vesu.segmentation import segment

    _check_outputs(arguments.volume, arguments.out, arguments.probability)
    model = SurfaceModel.load(arguments.model)
    ladder = model.segment_config if arguments.config is None else load_ladder(arguments.config)
    prediction = model.predict(read_volume(arguments.volume))
    result = segment(prediction.probability, ladder, uncertainty=prediction.uncertainty)
    return prediction.probability, result


def _by_scorer(arguments: Arguments) -> "tuple[NDArray[np.float32], Segmentation]":
    from vesu.data.volumes import read_volume
    from vesu.run.baseline import segment_volume

    config = config_of(arguments)
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
