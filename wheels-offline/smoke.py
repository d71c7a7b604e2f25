"""Use every kernel family of the installed vesu once, on each instruction-set path of this machine; print JSON.

Run by ``build.py`` on the unpacked wheel, and by hand under an emulator (docs/wheels.md): the answers of one path are
the same on every machine.
"""

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

import vesu
from vesu import _core, volume

PATHS = ("scalar", "neon", "avx2", "avx512")


def supported() -> list[str]:
    """The search's paths on this machine."""
    found = []
    for path in PATHS:
        try:
            found.append(_core.simd_path(path))
        except vesu.VesuError:
            continue
    return found


def kernels() -> str:
    """Digest of what does not depend on the path: reading, features, components, distances."""
    digest = hashlib.sha256()
    image = np.random.default_rng(3).integers(0, 256, (12, 16, 20), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for compression in ("none", "lzw", "deflate"):
            path = Path(folder) / f"{compression}.tif"
            vesu.write_volume(path, image, compression=compression)
            digest.update(vesu.read_volume(path).tobytes())
    digest.update(vesu.extract_features(image).values.tobytes())
    mask = (image > 200).astype(np.uint8)
    digest.update(np.asarray(volume.connected_components(mask, connectivity=26)[0]).tobytes())
    return digest.hexdigest()


def search(path: str) -> str:
    """Digest of a small search on one path."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 5), dtype=np.float32)
    grid = vesu.ElasticNetLogisticGrid(simd=path, max_iter=120).fit(x, x[:, 0] * x[:, 1] > 0.1)
    return hashlib.sha256(np.ascontiguousarray(grid.coef_).tobytes()).hexdigest()


if __name__ == "__main__":
    answer = {
        "core": _core.__file__,
        "version": vesu.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "kernels": kernels(),
        "search": {path: search(path) for path in supported()},
    }
    json.dump(answer, sys.stdout)
