"""Wheels: `vesu wheels check`, `manifest`."""

from pathlib import Path

from vesu.cli.arguments import Arguments, Commands, command, group


def add(commands: Commands) -> None:
    """Declare the commands."""
    wheels = group(commands, "wheels", "folders of wheels, to install without a network", "Work with a wheelhouse.")
    check = command(wheels, "check", _check, "say what of a wheelhouse would install on this interpreter, and why not")
    check.add_argument("folder", type=Path, metavar="DIR", help="folder of *.whl with a MANIFEST.json")
    check.add_argument(
        "--need",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package that must install, beside vesu; may be repeated",
    )

    made = command(wheels, "manifest", _manifest, "write DIR/MANIFEST.json from the wheels in DIR")
    made.add_argument("folder", type=Path, metavar="DIR", help="folder of *.whl")


def _check(arguments: Arguments) -> None:
    from vesu.offline import check_wheelhouse

    report = check_wheelhouse(arguments.folder, ("vesu", *arguments.need))
    print(report, flush=True)
    report.raise_if_faulty()


def _manifest(arguments: Arguments) -> None:
    from vesu.data.storage import write_json_atomic
    from vesu.offline import MANIFEST_NAME, build_manifest

    manifest = build_manifest(arguments.folder)
    path = arguments.folder / MANIFEST_NAME
    write_json_atomic(path, manifest.to_json())
    print(f"{path}: {len(manifest.wheels)} wheels, {sum(wheel.size for wheel in manifest.wheels)} bytes")
