"""What the commands share: how one is declared, and the options that make a configuration."""

import json
from argparse import ArgumentParser as Parser
from argparse import Namespace as Arguments
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vesu.errors import ArgumentError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from vesu.config import RunConfig

Commands: TypeAlias = "_SubParsersAction[Parser]"

__all__ = ["Arguments", "Commands", "Parser", "add_config", "command", "config_of", "group"]

# Imports of the stages sit inside the commands, so that `vesu --help` answers at once.


def command(commands: Commands, name: str, function: Callable[[Arguments], None], text: str) -> Parser:
    """Declare a command that runs `function`."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=function)
    return parser


def group(commands: Commands, name: str, text: str, description: str) -> Commands:
    """Declare a command that has commands of its own, such as `vesu ledger verify`."""
    parser = commands.add_parser(name, help=text, description=description)
    return parser.add_subparsers(required=True, metavar="COMMAND", title="commands")


def add_config(parser: Parser, pipeline: str = "vesu (default), or a historical scorer: nx46, nx47") -> None:
    """The options from which `config_of` makes a configuration."""
    parser.add_argument("--pipeline", metavar="NAME", help=pipeline)
    parser.add_argument("--config", type=Path, help="TOML file (docs/configuration.md lists the keys)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, such as search.meta_neurons=12; may be repeated",
    )


def config_of(arguments: Arguments, *, may_be_dry: bool = False) -> "RunConfig":
    """The configuration of a command line: file, environment, options.

    A dry run that was asked for (in the environment, say) is refused where a command would not honour it.
    """
    from vesu.config import load_config

    given = {
        "pipeline": arguments.pipeline,
        "student.use": getattr(arguments, "student", None),
        "teachers.folder": getattr(arguments, "teachers", None),
        "guided.reference": getattr(arguments, "guided", None),
    }
    chosen = [
        f"{key}={json.dumps(str(value), ensure_ascii=False)}" for key, value in given.items() if value is not None
    ]
    for flag, key in (("dry_run", "dry_run"), ("auto_tune", "auto_tune.use"), ("nonces", "nonces.use")):
        chosen += [f"{key}=true"] if getattr(arguments, flag, False) else []
    config = load_config(arguments.config, overrides=[*arguments.set, *chosen])
    if config.dry_run and not may_be_dry:
        raise ArgumentError("dry_run: got true for what has no dry run; accepted: for `vesu run` in one piece")
    return config
