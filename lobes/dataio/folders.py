"""Where corpora are, and how to fetch those whose licence allows it."""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from lobes.errors import DataError

logger = logging.getLogger(__name__)


def data_root(corpus: str, data_folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a corpus: `data_folder`, or else `$LOBES_DATA/<corpus>`.

    Parameters
    ----------
    corpus : str
        Name of the sub-folder of `LOBES_DATA`.
    data_folder : path, optional
        The corpus itself, as given by `--data_folder`; None or an empty string means `LOBES_DATA`.

    Raises
    ------
    DataError
        Neither is given, or the folder does not exist.
    """
    if data_folder:
        folder, origin = Path(data_folder), "data_folder"
    elif os.environ.get("LOBES_DATA"):
        folder, origin = Path(os.environ["LOBES_DATA"]) / corpus, f"LOBES_DATA/{corpus}"
    else:
        raise DataError(
            f"no folder is given for {corpus or 'the audio'}: pass --data_folder=FOLDER, "
            f"or set LOBES_DATA to the folder that holds {corpus or 'the corpora'}"
        )
    if not folder.is_dir():
        raise DataError(f"{origin} is {folder}, which is not a folder: pass --data_folder=FOLDER")
    return folder.resolve()


def wrong_layout(corpus: str, folder: Path, expected: str) -> DataError:
    """Return the error for a folder that is there but holds something else, naming what was looked for."""
    return DataError(f"{folder} does not look like {corpus}: no {expected} in it; check --data_folder")


def download_archive(url: str, folder: str | os.PathLike[str], target: Callable[[str], str | None]) -> int:
    """Fetch a ZIP or TAR archive and unpack the members that are wanted.

    Parameters
    ----------
    url : str
        Address of a `.zip`, `.tar.gz` or `.tgz`.
    folder : path
        Where to unpack; files that are there already are replaced.
    target : callable
        Name of a member -> path below `folder`, or None to leave it out.

    Returns
    -------
    int
        Files unpacked.

    Raises
    ------
    DataError
        The address cannot be reached, or holds no archive or nothing that is wanted.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        archive = Path(temporary) / "archive"
        _fetch(url, archive)
        try:
            for name, content in _members(archive, zipped=url.endswith(".zip")):
                wanted = target(name)
                if wanted is None:
                    continue
                if PurePosixPath(wanted).is_absolute() or ".." in PurePosixPath(wanted).parts:
                    raise DataError(f"{url} holds the member '{name}', which would be written outside {folder}")
                path = folder / wanted
                path.parent.mkdir(parents=True, exist_ok=True)
                whole = Path(temporary) / "member"
                with content, whole.open("wb") as out:
                    shutil.copyfileobj(content, out)
                os.replace(whole, path)
                count += 1
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{url} could not be unpacked into {folder}: {error}") from error
    if count == 0:
        raise DataError(f"{url} holds none of the files of the corpus: fetch it by hand")
    logger.info("%s: %d files unpacked into %s", url, count, folder)
    return count


def _fetch(url: str, path: Path) -> None:
    from tqdm import tqdm

    try:
        with urllib.request.urlopen(url, timeout=60) as response, path.open("wb") as out:  # noqa: S310
            total = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=f"Fetching {url}", disable=None) as bar:
                while block := response.read(1 << 20):
                    out.write(block)
                    bar.update(len(block))
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url} cannot be fetched: {reason}; fetch it by hand and pass --data_folder") from error


def _members(archive: Path, *, zipped: bool) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and content of each plain file; links are never followed."""
    if zipped:
        with zipfile.ZipFile(archive) as zip_file:
            for info in zip_file.infolist():
                if not info.is_dir():
                    yield info.filename, zip_file.open(info)
    else:
        with tarfile.open(archive) as tar_file:
            for member in tar_file:
                content = tar_file.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name, content
