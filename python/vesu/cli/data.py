"""Data: `vesu discover`, `preflight`."""

import json
from pathlib import Path

from vesu.cli.arguments import Arguments, Commands, command


def add(commands: Commands) -> None:
    """Declare the commands."""
    find = command(commands, "discover", _discover, "list pairs, tests and orphans of a data folder as JSON")
    find.add_argument("data", nargs="?", type=Path, help="data folder (default: looked for under /kaggle/input)")

    check = command(commands, "preflight", _preflight, "check a data folder before any long work")
    check.add_argument("data", nargs="?", type=Path, help="data folder (default: looked for under /kaggle/input)")
    check.add_argument("--work-dir", type=Path, default=Path(), help="where results would be written (default: .)")
    check.add_argument("--fraction", type=float, default=0.05, help="share of files decoded whole (default: 0.05)")
    check.add_argument("--gpu", action="store_true", help="also require a GPU that really runs a kernel")


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
