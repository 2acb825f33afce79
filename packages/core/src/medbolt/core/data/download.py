"""Downloads that are checked, and whole or not there."""

import hashlib
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from tqdm import tqdm

from medbolt.core.errors import UserError
from medbolt.core.files import atomic_write


def download(url: str, path: Path, md5: str | None = None) -> None:
    """Download a file, with a progress bar, and put it in place once it is complete and its checksum right.

    Args:
        url: Address, ``https:``, ``http:`` or ``file:``.
        path: Where to put it; folders are made.
        md5: Checksum in hexadecimal digits, against damage; ``None`` checks the announced length only.

    Raises:
        UserError: if the address cannot be reached, the transfer breaks off, the checksum differs, or the file cannot
            be written.

    Example:
        >>> download("file:///nowhere.npz", Path("nowhere.npz"))
        Traceback (most recent call last):
        medbolt.core.errors.UserError: file:///nowhere.npz cannot be downloaded ...
    """
    with atomic_write(path) as partial:
        try:
            found, complete = _transfer(url, partial)
        except (OSError, HTTPException) as error:
            raise UserError(
                f"{url} cannot be downloaded to {path} ({error}); try again, or fetch it by hand."
            ) from error
        if not complete or (md5 is not None and found != md5):
            what = f"has MD5 {found} instead of {md5}" if complete else "broke off"
            raise UserError(f"the download of {url} {what}; try again, or fetch it by hand to {path}.")


def _transfer(url: str, path: Path) -> tuple[str, bool]:
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with urlopen(url, timeout=60) as source:
        announced = int(source.headers.get("Content-Length") or 0)
        name = url.rsplit("/", 1)[-1]
        with path.open("wb") as file, tqdm(total=announced or None, unit="B", unit_scale=True, desc=name) as bar:
            while block := source.read(1 << 20):
                file.write(block)
                digest.update(block)
                size += len(block)
                bar.update(len(block))
    return digest.hexdigest(), size == (announced or size)
