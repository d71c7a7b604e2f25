"""kagglehub's two functions with its own signatures (version 1.0.2) and a folder in place of the network."""

import shutil
from pathlib import Path

SIGNATURES = {
    "model_download": (
        "(handle: str, path: str | None = None, *, force_download: bool | None = False, "
        "output_dir: str | None = None) -> str"
    ),
    "model_upload": (
        "(handle: str, local_model_dir: str, license_name: str | None = None, version_notes: str = '', "
        "ignore_patterns: list[str] | str | None = None, *, sigstore: bool | None = False) -> None"
    ),
}
"""As `inspect.signature` gives them for the real ones."""


class Response:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class KaggleApiHTTPError(OSError):
    """Like `requests.HTTPError` it is an OSError, and carries the response."""

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.response = response


class FakeKagglehub:
    """The module, as far as vesu uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.licenses: list[str | None] = []

    def versions(self, handle: str) -> list[int]:
        return sorted(int(path.name) for path in (self.folder / handle).glob("[0-9]*"))

    def model_upload(
        self,
        handle: str,
        local_model_dir: str,
        license_name: str | None = None,
        version_notes: str = "",
        ignore_patterns: list[str] | str | None = None,
        *,
        sigstore: bool | None = False,
    ) -> None:
        assert handle.count("/") == 3, "The model handle should not include the version"
        number = max(self.versions(handle), default=0) + 1
        shutil.copytree(local_model_dir, self.folder / handle / str(number))
        self.notes.append(version_notes)
        self.licenses.append(license_name)

    def model_download(
        self,
        handle: str,
        path: str | None = None,
        *,
        force_download: bool | None = False,
        output_dir: str | None = None,
    ) -> str:
        if handle.count("/") == 3:
            versions = self.versions(handle)
            if not versions:
                raise KaggleApiHTTPError("404 Client Error. Resource not found", Response(404))
            handle = f"{handle}/{versions[-1]}"
        return str(self.folder / handle)
