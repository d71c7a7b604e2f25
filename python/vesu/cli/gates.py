"""The verdict before a submission: `vesu gates`."""

from pathlib import Path

from vesu.cli.arguments import Arguments, Commands, command

NO_GO = 4
"""Exit code: a gate failed. The zip is valid all the same."""


def add(commands: Commands) -> None:
    """Declare the command."""
    gates = command(commands, "gates", _gates, "judge a run folder again: GO or NO-GO, from its verified log alone")
    gates.add_argument("run", type=Path, help="run folder, of an unfinished run too")
    gates.add_argument("--json", action="store_true", help="print what go_no_go.json holds")
    gates.add_argument(
        "--files", action="store_true", help="say which V3 files the run was to leave, and which it left, instead"
    )
    gates.add_argument(
        "--head",
        type=Path,
        action="append",
        default=[],
        help="a tree head that the log must go on from, as `vesu ledger head` printed it; may be repeated",
    )


def _gates(arguments: Arguments) -> None:
    if arguments.files:
        _files(arguments.run)
        return
    import json

    from vesu.ledger.commands import read_head
    from vesu.run.gates import judge

    report = judge(arguments.run, heads=[read_head(path) for path in arguments.head])
    print(json.dumps(report.to_json(), indent=2) if arguments.json else report)
    if not report.go:
        raise SystemExit(NO_GO)


def _files(run: Path) -> None:
    from vesu.run.gates import v3_files

    found = v3_files(run)
    for each in found:
        words = "there" if each.there else "missing" if each.asked else "not asked for"
        print(f"{each.name:<34} {words if each.problem is None else each.problem}")
    if any(each.problem for each in found):
        raise SystemExit(NO_GO)
