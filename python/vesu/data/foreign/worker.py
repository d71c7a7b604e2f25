"""Decodes the pages of one TIFF to standard output as raw voxels. Run as a script; imports nothing of vesu.

Arguments: z, y, x, dtype (NumPy's text), threads (0: as many as there are), file, folders for the path.
"""

import contextlib
import resource
import sys

_ROOM = 4 << 30
"""Address space beside the voxels: libraries, their threads' stacks, the compressed bytes."""


def main(arguments: list[str]) -> None:
    """Write the first z pages, or end with a line on standard error."""
    z, y, x = map(int, arguments[:3])
    text, threads, path, *folders = arguments[3:]
    sys.path.extend(folders)
    import numpy as np
    import tifffile

    dtype = np.dtype(text)
    limit = _ROOM + 4 * z * y * x * dtype.itemsize
    with contextlib.suppress(ValueError, OSError):  # a lower limit stands already
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tifffile.TiffFile(path) as file:
        for index in range(z):
            page = file.pages[index].asarray(maxworkers=int(threads) or None)
            if page.shape != (y, x) or page.dtype.newbyteorder("=") != dtype:
                sys.exit(f"page {index} decodes to {page.dtype} of {page.shape}; its header says {text} of {(y, x)}")
            sys.stdout.buffer.write(np.ascontiguousarray(page, dtype).data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
