"""Wheels: `vesu wheels manifest`."""

from pathlib import Path

from vesu.cli.arguments import Arguments, Commands, command, group


def add(commands: Commands) -> None:
    """Declare the commands."""
    wheels = group(commands, "wheels", "folders of wheels, to install without a network", "Work with a wheelhouse.")
    made = command(wheels, "manifest", _manifest, "write DIR/MANIFEST.json from the wheels in DIR")
    made.add_argument("folder", type=Path, metavar="DIR", help="folder of *.whl")


def _manifest(arguments: Arguments) -> None:
    from vesu.data.storage import write_json_atomic
    from vesu.offline import MANIFEST_NAME, build_manifest

    manifest = build_manifest(arguments.folder)
    path = arguments.folder / MANIFEST_NAME
    write_json_atomic(path, manifest.to_json())
    print(f"{path}: {len(manifest.wheels)} wheels, {sum(wheel.size for wheel in manifest.wheels)} bytes")
