"""The command line: the same steps as the functions of ``import vesu``.

Exit codes: 0 done, 2 a :class:`VesuError` (one line on standard error, no traceback), 3 a run whose time was over
before its work (its state is saved, its zip valid), 4 a NO-GO (a gate failed, or a distillation that was due did not
run; the zip is valid, go_no_go.json names the gates), 5 a campaign in which a run has no score (the others have), 130
interrupted, 143 terminated.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from vesu import __version__
from vesu.cli import ablate, campaigns, data, evidence, gates, masks, parts, runs, teachers, tune, wheels
from vesu.errors import DistillationNotExecuted, VesuError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Examples
    --------
    >>> main(["--version"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    arguments = parser().parse_args(argv)
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except VesuError as error:
        print(f"vesu: {type(error).__name__}: {error}", file=sys.stderr)
        return gates.NO_GO if isinstance(error, DistillationNotExecuted) else 2
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


def parser() -> ArgumentParser:
    """All commands, each group from its own module."""
    whole = ArgumentParser(
        prog="vesu",
        description="Find papyrus surfaces in 3-D X-ray CT of the Herculaneum scrolls.",
        epilog="New here? `vesu demo` generates a small data set, runs everything on it and leaves a submission.zip "
        "and a report.html to look at.",
    )
    whole.add_argument("--version", action="version", version=f"vesu {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for group in (runs, gates, parts, campaigns, tune, data, masks, evidence, teachers, wheels, ablate):
        group.add(commands)
    return whole
