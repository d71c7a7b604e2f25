"""Campaigns: `vesu campaign`."""

from pathlib import Path
from typing import Any

from vesu.cli.arguments import Arguments, Commands, command
from vesu.errors import ArgumentError

INCOMPLETE = 5


def add(commands: Commands) -> None:
    """Declare the command."""
    run = command(
        commands, "campaign", _campaign, "run variants with the same seeds, score them on held-out volumes, compare"
    )
    run.add_argument("matrix", type=Path, help="TOML or JSON file of the variants (docs/campaigns.md)")
    run.add_argument("data", nargs="?", type=Path, help="as for `vesu run`")
    run.add_argument("--out", type=Path, default=Path("campaign"), help="campaign folder (default: campaign)")
    run.add_argument("--cache", type=Path, help="folder of decoded volumes and features (default: OUT/cache)")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting for all runs, such as n_threads=1; may be repeated",
    )
    run.add_argument("--quiet", action="store_true", help="no line for each run")
    run.add_argument("--num-parts", type=int, metavar="N", help="in how many parts the runs are divided (default: 1)")
    run.add_argument("--part-id", type=int, metavar="K", help="which of them this is, from 0")
    only = run.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="check every run, begin none, write nothing")
    only.add_argument("--compare-only", action="store_true", help="compare the runs that lie in OUT, make none")


def _campaign(arguments: Arguments) -> None:
    from vesu import campaign

    _check(arguments)
    if arguments.compare_only:
        _tell(campaign.compare_campaign(arguments.matrix, arguments.out), arguments.out)
        return
    where: dict[str, Any] = {"cache": arguments.cache, "settings": arguments.set}
    if arguments.dry_run:
        found = campaign.preflight_campaign(arguments.matrix, arguments.data, arguments.out, **where)
        found.raise_if_blocked()
        print(found)
        return
    where["announce"] = None if arguments.quiet else lambda line: print(line, flush=True)
    if arguments.num_parts is None:
        _tell(campaign.run_campaign(arguments.matrix, arguments.data, arguments.out, **where), arguments.out)
        return
    parts = {"num_parts": arguments.num_parts, "part_id": arguments.part_id}
    records = campaign.run_part(arguments.matrix, arguments.data, arguments.out, **parts, **where)
    failed = [each for each in records if not each.finished]
    print(f"part        {arguments.part_id} of {arguments.num_parts}: {len(records) - len(failed)}/{len(records)} runs")
    print(f"compare     when all parts are done: vesu campaign {arguments.matrix} --out {arguments.out} --compare-only")
    if failed:
        raise SystemExit(INCOMPLETE)


def _check(arguments: Arguments) -> None:
    if (arguments.num_parts is None) != (arguments.part_id is None):
        raise ArgumentError("--num-parts, --part-id: got one of them; accepted: both or none")
    if arguments.compare_only:
        for name in ("data", "cache", "num_parts"):
            if getattr(arguments, name) is not None:
                raise ArgumentError(
                    f"--compare-only: got it beside {name.replace('_', '-')}; accepted: MATRIX and --out"
                )
        if arguments.set:
            raise ArgumentError("--compare-only: got it beside --set; accepted: MATRIX and --out")


def _tell(comparison: Any, out: Path) -> None:
    page = out / "comparison.html"
    print(comparison)
    print(f"report      {page if page.exists() else out / 'comparison.md'}")
    print(f"evidence    {out / 'events.jsonl'}")
    if comparison.failed:
        raise SystemExit(INCOMPLETE)
