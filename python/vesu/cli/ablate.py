"""What parts are worth: `vesu ablate features`, `steps`, `teachers`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vesu.cli.arguments import Arguments, Commands, add_config, command, config_of, group
from vesu.errors import ArgumentError

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the commands."""
    ablate = group(
        commands,
        "ablate",
        "measure what each feature group, ladder step or teacher is worth",
        "Leave each out in turn, over several seeds, and judge on labelled volumes that chose nothing "
        "(docs/ablation.md).",
    )
    features = command(ablate, "features", _features, "search the whole grid without each feature group")
    features.add_argument(
        "--by", choices=("group", "family"), default="group", help="what is left out at a time (default: group)"
    )
    steps = command(ablate, "steps", _steps, "cut the same probabilities into masks without each step of the ladder")
    teachers = command(ablate, "teachers", _teachers, "teach students without each teacher")
    teachers.add_argument("--teachers", type=Path, metavar="DIR", help="their folder (default: in or beside DATA)")
    for each in (features, teachers):
        each.add_argument(
            "--measure",
            choices=("score", "objective"),
            default="score",
            help="the competition's score of whole masks (default), or what a model is chosen by before it has masks",
        )
    for each in (features, steps, teachers):
        each.add_argument("data", type=Path, help="folder with train_images/ and train_labels/")
        each.add_argument("--out", type=Path, required=True, help="the study's folder; an interrupted one goes on")
        each.add_argument("--seeds", type=int, default=3, metavar="N", help="how many, from the setting seed on (3)")
        each.add_argument(
            "--judged", metavar="N|ID,ID", help="how many volumes are judged, or which (default: a third, 8 at most)"
        )
        each.add_argument("--min-gain", type=float, default=0.0, help="smaller differences count as none (default: 0)")
        each.add_argument("--cache", type=Path, help="folder of decoded volumes and features (default: OUT/cache)")
        each.add_argument("--restart", action="store_true", help="give up what is in OUT and begin anew")
        each.add_argument("--quiet", action="store_true", help="print the table alone")
        add_config(each, "vesu (default); a historical scorer has nothing to leave out")


def _features(arguments: Arguments) -> None:
    from vesu.run.ablations.features import FAMILY_GROUPS, GROUPS, ablate_features

    groups = FAMILY_GROUPS if arguments.by == "family" else GROUPS
    print(ablate_features(**_common(arguments), measure=arguments.measure, groups=groups))


def _steps(arguments: Arguments) -> None:
    from vesu.run.ablations import ablate_steps

    print(ablate_steps(**_common(arguments)))


def _teachers(arguments: Arguments) -> None:
    from vesu.run.ablations import ablate_teachers

    print(ablate_teachers(**_common(arguments), measure=arguments.measure))


def _common(arguments: Arguments) -> dict[str, Any]:
    """What all ablations are asked with."""
    config = config_of(arguments)
    if arguments.seeds < 2:
        raise ArgumentError(f"--seeds: got {arguments.seeds}; accepted: 2 or more (3 to decide anything)")
    return {
        "data": arguments.data,
        "out": arguments.out,
        "seeds": tuple(range(config.seed, config.seed + arguments.seeds)),
        "config": config,
        "judged": _judged(arguments.judged),
        "min_gain": arguments.min_gain,
        "cache": arguments.cache,
        "restart": arguments.restart,
        "on_score": None if arguments.quiet else _told,
    }


def _judged(given: str | None) -> int | list[str] | None:
    """A short number is how many; anything else are ids (those of the competition have more digits)."""
    if given is None:
        return None
    return (
        int(given)
        if given.isdecimal() and len(given) < 5
        else [name.strip() for name in given.split(",") if name.strip()]
    )


def _told(done: int, total: int, fields: Mapping[str, Any]) -> None:
    scores = fields["score"].values()
    left_out = ", ".join(fields["left_out"]) or "nothing"
    print(f"{done}/{total}  seed {fields['seed']}, without {left_out}: {sum(scores) / len(scores):.4f}", flush=True)
