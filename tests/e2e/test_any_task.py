"""A nectarflow can be any AI task: the user's own classes, and servers that run already."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = str(Path(__file__).parents[2] / "examples")
SERVER = """
import sys, threading
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx, params.verbosity = sys.argv[1], 2, 2048, 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
"""


def test_text_statistics(fresh: Any) -> None:
    fresh.run("spawn", "rustbee", "--type", "python", "--modelcell", "stats", "--class", "text_stats:TextStats",
              "--python-path", EXAMPLES)  # fmt: skip
    job = fresh.json("nectarflow", "submit", "--modelcell", "stats", "--input", '"one two two"', "--detach")["job_id"]
    fresh.until(lambda: fresh.json("nectarflow", "show", job)["status"] == "done")
    assert fresh.json("honeytokens", "collect", "--job-id", job)["outputs"]


def test_an_image_comes_out_as_png(fresh: Any, tmp_path: Path) -> None:
    fresh.run("spawn", "rustbee", "--type", "python", "--modelcell", "image", "--class", "png_image:CombImage",
              "--python-path", EXAMPLES)  # fmt: skip
    with fresh.http() as client:
        job = client.post("/v2/swarmesh/nectarflow", json={"modelcell": "image", "prompt": "a bee"}).json()["job_id"]
        fresh.until(lambda: client.get(f"/v2/swarmesh/nectarflow/{job}").json()["status"] == "done")
        outputs = client.get(f"/v2/swarmesh/honeytokens/{job}").json()["outputs"]
    assert outputs[0]["media_type"] == "image/png"
    assert base64.b64decode(outputs[0]["base64"]).startswith(b"\x89PNG\r\n\x1a\n")
    target = tmp_path / "bee.png"
    fresh.run("nectarflow", "submit", "--modelcell", "image", "--prompt", "a bee", "--output", str(target))
    assert target.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_class_that_cannot_be_imported(fresh: Any) -> None:
    done = fresh.run(
        "spawn", "rustbee", "--type", "python", "--modelcell", "x", "--class", "no_such:Class", check=False
    )
    assert done.returncode == 1
    assert "no_such" in done.stderr


@pytest.fixture
def llama_cpp_url() -> Iterator[str]:
    """A llama.cpp server of the user's own, on loopback."""
    from swarmesh.models.demo import DEMO_GGUF  # noqa: PLC0415 - only this fixture needs the path

    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(DEMO_GGUF)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_running_server_is_adopted(fresh: Any, llama_cpp_url: str) -> None:
    fresh.run("spawn", "rustbee", "--type", "openai", "--url", llama_cpp_url, "--modelcell", "mine")
    row = fresh.rustbees()[0]
    assert row["backend"] == "openai"
    assert row["slots"] == 2  # What llama.cpp itself reports.
    with fresh.openai() as client:
        answer = client.chat.completions.create(
            model="mine", messages=[{"role": "user", "content": "Hello"}], temperature=0
        )
        assert answer.choices[0].message.content.startswith("Hello!")
    assert fresh.run("nectarflow", "submit", "--modelcell", "mine", "--prompt", "Hello").stdout.startswith("Hello!")
    fresh.run("rustbees", "stop", row["rustbee_id"])
    fresh.until(lambda: not fresh.rustbees())
