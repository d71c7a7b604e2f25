"""Packages without a network: folders of wheels, what of them fits this interpreter, and their installation (R06)."""

from vesu.offline.manifest import FORMAT, MANIFEST_NAME, Manifest, build_manifest, read_manifest
from vesu.offline.wheels import Wheel, read_wheel

__all__ = ["FORMAT", "MANIFEST_NAME", "Manifest", "Wheel", "build_manifest", "read_manifest", "read_wheel"]
