"""Evidence: `vesu ledger verify`, `head`, `prove`."""

import json
from pathlib import Path

from vesu.cli.arguments import Arguments, Commands, command, group


def add(commands: Commands) -> None:
    """Declare the commands."""
    ledger = group(commands, "ledger", "evidence of a run", "Work with a run's event log.")
    check = command(ledger, "verify", _ledger_verify, "check a log: every record, link and the Merkle root")
    check.add_argument("log", nargs="?", type=Path, help="events.jsonl; may be left out with --proof")
    check.add_argument("--proof", type=Path, help="check this proof too, as `vesu ledger prove` printed it")
    check.add_argument(
        "--head",
        type=Path,
        action="append",
        default=[],
        help="a tree head that log and proof must agree with, as `vesu ledger head` printed it; may be repeated",
    )

    head = command(ledger, "head", _ledger_head, "print a log's tree head as C2SP tlog-checkpoint text")
    head.add_argument("log", type=Path, help="events.jsonl")
    head.add_argument("--size", type=int, help="over the first SIZE records (default: all)")
    head.add_argument("--origin", default="vesu/run", help="which log this is (default: vesu/run)")

    prove = command(ledger, "prove", _ledger_prove, "print a proof (RFC 9162) about a log as JSON")
    prove.add_argument("log", type=Path, help="events.jsonl")
    about = prove.add_mutually_exclusive_group(required=True)
    about.add_argument("--record", type=int, metavar="INDEX", help="that record INDEX, from 0, is in the log")
    about.add_argument("--since", type=int, metavar="SIZE", help="that the log goes on from its first SIZE records")
    prove.add_argument("--size", type=int, help="of the log as it was with SIZE records (default: all)")


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
