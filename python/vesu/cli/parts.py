"""Work split over machines: `vesu merge`, and the options of `vesu run` that make a part."""

from pathlib import Path

from vesu.cli.arguments import Arguments, Commands, Parser, command, config_of
from vesu.errors import ArgumentError

__all__ = ["add", "add_options", "do_part"]


def add(commands: Commands) -> None:
    """Declare the command."""
    joined = command(commands, "merge", _merge, "put all parts of a phase together, or say what is wrong with them")
    joined.add_argument("parts", nargs="+", type=Path, metavar="PART", help="folder of a finished part")
    joined.add_argument("--out", type=Path, required=True, help="folder for what they come to together")


def add_options(run: Parser) -> None:
    """What of a run is to be done here, and which part of it."""
    run.add_argument(
        "--phase",
        choices=("features", "search", "segment"),
        help="only this, for more than one machine (docs/parts.md): features (load and sample the training volumes) "
        "and segment (masks of the test volumes) by parts, search (everything up to the model) in one piece",
    )
    run.add_argument("--num-parts", type=int, metavar="N", help="in how many parts the phase is split (default: 1)")
    run.add_argument("--part-id", type=int, metavar="K", help="which of them this is, from 0 (default: 0)")
    run.add_argument("--model", type=Path, metavar="RUN", help="with --phase segment: run folder that holds the model")
    run.add_argument(
        "--masks", type=Path, metavar="MERGED", help="take the masks that parts made, as `vesu merge` put them together"
    )


def do_part(arguments: Arguments) -> bool:
    """Do the part that the command line asks for; False where it asks for a run in one piece."""
    _check(arguments)
    if arguments.phase not in ("features", "segment"):
        return False
    from vesu.run.parts import make_part

    def on_volume(volume_id: str, done: int, total: int) -> None:
        if not arguments.quiet:
            print(f"{arguments.phase} {done}/{total}: {volume_id}", flush=True)

    part = make_part(
        arguments.data,
        arguments.out,
        phase=arguments.phase,
        num_parts=1 if arguments.num_parts is None else arguments.num_parts,
        part_id=0 if arguments.part_id is None else arguments.part_id,
        config=config_of(arguments),
        model=arguments.model,
        restart=arguments.restart,
        on_volume=on_volume,
    )
    print(part)
    return True


def _check(arguments: Arguments) -> None:
    by_parts = arguments.phase in ("features", "segment")
    for name in ("num_parts", "part_id"):
        if getattr(arguments, name) is not None and not by_parts:
            word = name.replace("_", "-")
            raise ArgumentError(f"--{word}: got it without --phase features or --phase segment, which work by parts")
    if arguments.model is not None and arguments.phase != "segment":
        raise ArgumentError("--model: got it without --phase segment; accepted: only there")
    if by_parts and arguments.masks is not None:
        raise ArgumentError("--masks: got it for a part; accepted: for the run that packages all masks")
    if by_parts and arguments.cache is not None:
        raise ArgumentError("--cache: got it for a part, which keeps its arrays in its own folder; accepted: without")
    if by_parts and arguments.retrain_changed:
        raise ArgumentError("--retrain-changed: got it for a part; accepted: --restart, which does it anew")


def _merge(arguments: Arguments) -> None:
    from vesu.run.parts import merge

    print(merge(arguments.parts, arguments.out))
