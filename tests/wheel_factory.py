"""Small wheels that are made in a moment, and damaged ones."""

import base64
import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from vesu.offline import MANIFEST_NAME, build_manifest


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    tags: Sequence[str] = ("py3-none-any",),
    requires: Sequence[str] = (),
    requires_python: str | None = None,
    body: str = "ANSWER = 42\n",
    file_tag: str | None = None,
    metadata_name: str | None = None,
) -> Path:
    """A pure wheel that brings one module; ``tags`` are those inside, ``file_tag`` what the name promises instead."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {metadata_name or name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {each}" for each in requires]
    metadata += [f"Requires-Python: {requires_python}"] if requires_python else []
    wheel = ["Wheel-Version: 1.0", "Generator: tests", "Root-Is-Purelib: true", *[f"Tag: {tag}" for tag in tags]]
    files = {
        f"{module}.py": f'__version__ = "{version}"\n{body}',
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "\n".join(wheel) + "\n",
    }
    record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{module}-{version}-{file_tag or _compressed(tags)}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
    return path


def write_manifest(folder: Path) -> Path:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(build_manifest(folder).to_json()))
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _compressed(tags: Sequence[str]) -> str:
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts)
