"""Packages without a network: folders of wheels, what of them fits this interpreter, and their installation (R06).

``build_manifest`` and ``read_manifest`` are about a folder's ``MANIFEST.json``, ``check_wheelhouse`` says what of a
folder would install here, ``resolve`` and ``require`` make a package importable. It needs the standard library and
pip alone, and knows nothing of volumes: :mod:`vesu.data.foreign` asks it for the decoder of a rare TIFF compression.
"""

from vesu.offline.check import CheckedWheel, WheelhouseReport, check_wheelhouse
from vesu.offline.interpreter import OfflineError
from vesu.offline.manifest import FORMAT, MANIFEST_NAME, Manifest, build_manifest, read_manifest
from vesu.offline.resolver import Resolution, require, resolve
from vesu.offline.search import Limits, Searched
from vesu.offline.stock import Rejection
from vesu.offline.wheels import Wheel, read_wheel

__all__ = [
    "FORMAT",
    "MANIFEST_NAME",
    "CheckedWheel",
    "Limits",
    "Manifest",
    "OfflineError",
    "Rejection",
    "Resolution",
    "Searched",
    "Wheel",
    "WheelhouseReport",
    "build_manifest",
    "check_wheelhouse",
    "read_manifest",
    "read_wheel",
    "require",
    "resolve",
]
