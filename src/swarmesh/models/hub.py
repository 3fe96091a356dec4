"""Fetching a GGUF file from a Hugging Face repository, into the cache that other programs share.

``huggingface_hub`` does the work, and honours ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_CACHE``; that a download goes
on where an earlier one was cut off is `swarmesh.models.hub_blob`'s. It is an optional extra, so it is imported where it
is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from swarmesh.core.errors import InvalidValueError, NotFoundError, SwarmeshError
from swarmesh.models.hub_blob import DownloadError, fetch_blob

SCHEME = "hf:"
_REFERENCE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)/(?P<file>(?:[\w.-]+/)*[\w.-]+\.gguf)", re.ASCII)

OnProgress = Callable[[int, int], None]
"""Takes bytes done and bytes in all; the second is 0 while it is not known."""


class MissingExtraError(SwarmeshError):
    """An optional part of Swarmesh is not installed."""

    code = "missing_extra"
    status = 501


class HubFile(msgspec.Struct, frozen=True):
    """One file of a repository."""

    repository: str
    file: str


def parse_reference(text: str) -> HubFile:
    """``hf:org/repo/file.gguf`` as its parts.

    Raises:
        InvalidValueError: It is not of that form.
    """
    match = _REFERENCE.fullmatch(text.removeprefix(SCHEME)) if text.startswith(SCHEME) else None
    if match is None or ".." in text:
        raise InvalidValueError(
            f"'{text}' does not name a file.", hint="Write hf:ORG/REPOSITORY/FILE.gguf", param="model"
        )
    return HubFile(match["repository"], match["file"])


def download(wanted: HubFile, *, on_progress: OnProgress, cache: Path | None = None) -> Path:
    """Fetch a file, or find it already fetched, and give its path in the cache. Blocks until it is there.

    Raises:
        MissingExtraError: ``huggingface_hub`` is not installed.
        NotFoundError: There is no such repository or file, or this user may not see it.
        DownloadError: Anything else that ended it; running it again resumes.
    """
    # Swarmesh sends nobody anything about its users; the library reads this when it is first imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import errors, hf_hub_download  # noqa: PLC0415  an optional extra
    except ImportError as error:
        raise MissingExtraError(
            "downloading from Hugging Face needs the package huggingface_hub.", hint="pip install 'rustbee[hub]'"
        ) from error

    class Bar(_ProgressBar):
        def report(self, done_bytes: int, total_bytes: int) -> None:
            on_progress(done_bytes, total_bytes)

    try:
        fetch_blob(wanted.repository, wanted.file, cache=cache, progress_bar=Bar)
        return Path(hf_hub_download(wanted.repository, wanted.file, cache_dir=cache, tqdm_class=Bar))
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise NotFoundError(
            f"the repository {wanted.repository} does not exist, or this user may not see it.",
            hint="Check the name; for a private or gated one accept its terms and set HF_TOKEN.",
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise NotFoundError(f"the repository {wanted.repository} has no file {wanted.file}.") from error
    # Whichever HTTP library it uses, it has the root of that one's errors under this name.
    except (errors.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]
        raise DownloadError(f"{wanted.repository}/{wanted.file} did not arrive: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _ProgressBar:
    """What ``huggingface_hub`` takes for a tqdm progress bar: it counts, and draws nothing."""

    def __init__(self, *_: object, total: float | None = None, initial: float = 0, **_options: object) -> None:
        self.total = total
        self.n = initial

    def update(self, count: float) -> None:
        """Bytes that have been written to the file."""
        self.n += count
        self.report(int(self.n), int(self.total or 0))

    def report(self, done_bytes: int, total_bytes: int) -> None:
        """Called after each piece; the subclass says where the numbers go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is drawn, so nothing is left to do; the same holds for all below."""

    def refresh(self, *_: object, **_options: object) -> None:
        """See ``close``."""

    update_transfer = set_postfix_str = set_transfer_postfix_str = set_description_str = refresh
