"""A file of the hub on its way into the cache's blobs, so that a download that was cut off goes on another day.

``huggingface_hub`` throws away what has arrived when a download ends early (since 2.0; each try has a file of its own,
because locks do not hold on every file system). For gigabytes over a home line that is too dear. So large files are
fetched here, with its own functions, and put under the name where it looks for them: it finds them whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import Any, Final

from swarmesh.core.errors import SwarmeshError

_SHA256 = re.compile(r"[0-9a-f]{64}")
ENDING: Final = ".swarmesh.incomplete"


class DownloadError(SwarmeshError):
    """The download did not succeed."""

    code = "download_failed"
    status = 502
    default_hint = "Run the same command again: what has arrived is kept, and the download goes on from there."


def fetch_blob(repository: str, file: str, *, cache: Path | None, progress_bar: type[Any]) -> None:
    """Bring a file's content into the cache; nothing happens for one that is there, or that has no SHA-256 on the hub.

    What the hub says against it is left for ``hf_hub_download`` to find out again and to name.

    Raises:
        DownloadError: What arrived is another file than was announced; it is thrown away.
        OSError: The disk, or the connection.
        huggingface_hub.errors.HTTPError: The connection.
    """
    from huggingface_hub import constants, errors  # noqa: PLC0415  an optional extra
    from huggingface_hub.file_download import (  # noqa: PLC0415  an optional extra
        get_hf_file_metadata,
        hf_hub_url,
        repo_folder_name,
    )

    try:
        metadata = get_hf_file_metadata(hf_hub_url(repository, file))
    except (errors.HTTPError, OSError):  # type: ignore[attr-defined]  # Its HTTP library's, under this name.
        return
    sha256 = metadata.etag or ""
    if not metadata.size or not _SHA256.fullmatch(sha256):
        return
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    blob = Path(cache or constants.HF_HUB_CACHE) / folder / "blobs" / sha256
    if blob.exists():
        return
    # The commit is named, so that what is fetched is what was announced even if the repository changes meanwhile.
    url = hf_hub_url(repository, file, revision=metadata.commit_hash)
    blob.parent.mkdir(parents=True, exist_ok=True)
    _fetch(url, blob, metadata.size, progress_bar)


def _fetch(url: str, blob: Path, size_bytes: int, progress_bar: type[Any]) -> None:
    from huggingface_hub.file_download import http_get  # noqa: PLC0415  an optional extra

    # Public, though its package does not say so in a way that type checkers know.
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # noqa: PLC0415

    partial = blob.with_name(blob.name + ENDING)
    with partial.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # Another process fetches it, or this file system has no locks: each for itself, then.
        if not _is_at(partial, stream.fileno()):
            return  # Another process has just finished it.
        arrived_bytes = os.fstat(stream.fileno()).st_size
        if arrived_bytes > size_bytes:
            stream.truncate(0)
            arrived_bytes = 0
        if arrived_bytes < size_bytes:
            http_get(
                url,
                stream,
                resume_size=arrived_bytes,
                headers=build_hf_headers(),
                expected_size=size_bytes,
                displayed_filename=blob.name,
                tqdm_class=progress_bar,
            )
        stream.flush()
        os.fsync(stream.fileno())
        _check(partial, blob.name)
        partial.replace(blob)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _check(partial: Path, sha256: str) -> None:
    with partial.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        partial.unlink()
        raise DownloadError(
            f"what arrived has SHA-256 {found}, not {sha256}.", hint="It was thrown away. Run the same command again."
        )
