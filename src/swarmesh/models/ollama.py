"""Ollama's model directory: manifests that name blobs, which are GGUF files without the ending."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

MAX_MANIFEST_BYTES = 1024 * 1024
_MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_DEFAULT_NAMESPACE = "library"
_DEFAULT_TAG = "latest"


class OllamaModel(msgspec.Struct, frozen=True, kw_only=True):
    """One tag: the name Ollama's users know, such as ``llama3.2:3b``, and the blob with the weights."""

    name: str
    blob: Path
    sha256: str


class UnusableManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that names no model file, and why."""

    path: Path
    reason: str


class _Layer(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""


class _Manifest(msgspec.Struct):
    layers: list[_Layer] = []


def is_ollama_directory(directory: Path) -> bool:
    """Whether this looks like the directory that ``OLLAMA_MODELS`` names."""
    return (directory / "manifests").is_dir() and (directory / "blobs").is_dir()


def read_manifest(models: Path, manifest: Path) -> OllamaModel | UnusableManifest:
    """What one manifest file under ``models/manifests`` names."""
    try:
        with manifest.open("rb") as stream:
            content = stream.read(MAX_MANIFEST_BYTES)
        layers = msgspec.json.decode(content, type=_Manifest).layers
    except OSError as error:
        return UnusableManifest(path=manifest, reason=f"it cannot be read: {error.strerror}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return UnusableManifest(path=manifest, reason=f"its manifest cannot be understood: {error}")
    for digest in _model_digests(layers):
        return OllamaModel(
            name=_name(manifest.relative_to(models / "manifests")),
            blob=models / "blobs" / f"sha256-{digest}",
            sha256=digest,
        )
    return UnusableManifest(path=manifest, reason="its manifest names no model file")


def _model_digests(layers: list[_Layer]) -> Iterator[str]:
    for layer in layers:
        # A digest becomes a file name, so nothing but 64 hexadecimal digits may pass.
        digest = _DIGEST.fullmatch(layer.digest)
        if layer.media_type == _MODEL_LAYER and digest:
            yield digest[1]


def _name(relative: Path) -> str:
    """``registry/namespace/model/tag`` as people write it: without what is usual."""
    *before, tag = relative.parts[1:] or relative.parts
    if before and before[0] == _DEFAULT_NAMESPACE:
        before = before[1:]
    name = "/".join(before)
    return name if tag == _DEFAULT_TAG else f"{name}:{tag}"
