"""What a file that is not GGUF looks like, so that the error can say what went wrong."""

from __future__ import annotations

from pathlib import Path

from swarmesh.core.errors import ModelFileError

_DOWNLOAD = "Download the file itself: a browser's 'Save as' or a missing login often gives a page in its place."
_CONVERT = "Convert it to GGUF with llama.cpp's converter, or look for a .gguf of the same model."

_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"<", "a web page", _DOWNLOAD),
    (b"{", "a JSON answer", _DOWNLOAD),
    (b"version ", "a Git LFS pointer, not the file it points to", "Run 'git lfs pull' in that repository."),
    (b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint", _CONVERT),
    (b"\x80", "a Python pickle, such as an old PyTorch checkpoint", _CONVERT),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "Unpack it first."),
    (b"lmgg", "a GGML file from before GGUF", _CONVERT),
    (b"fmgg", "a GGML file from before GGUF", _CONVERT),
    (b"tjgg", "a GGML file from before GGUF", _CONVERT),
    (b"\0\0\0\0", "zeros, such as an unfinished download", "Download the file again."),
)


def not_gguf(path: Path, head: bytes, size_bytes: int) -> ModelFileError:
    """The error for a file whose first bytes, ``head``, are not GGUF's."""
    if not head:
        return ModelFileError(f"{path} is empty (0 bytes).", hint="Download or copy the file again.")
    what, hint = _guess(head)
    looks = f", which looks like {what}" if what else ""
    return ModelFileError(
        f"{path} is not a GGUF file: it starts with {head[:4]!r}{looks} ({size_bytes:,} bytes).", hint=hint
    )


def _guess(head: bytes) -> tuple[str, str]:
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "a safetensors file", _CONVERT
    for start, what, hint in _STARTS:
        if head.startswith(start):
            return what, hint
    return "", "Give a model in GGUF format (a .gguf file)."
