"""A whole swarm as a user has one: a home of its own, the command line, real agents, the real demo model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai

SWARMESH = str(Path(sys.executable).parent / "swarmesh")
COMMAND_TIMEOUT_S = 60
LOG_CHARS_SHOWN = 4_000


def run_alone(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command in a home where nothing runs, with nothing else in its environment."""
    return subprocess.run(
        [SWARMESH, *arguments],
        env={"SWARMESH_HOME": str(home), "PATH": "/usr/bin:/bin", "TMPDIR": tempfile.gettempdir()},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )


class Swarm:
    """Runs commands in a home and asks its queen."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        self.env = {**kept, "SWARMESH_HOME": str(home), "HOME": str(home)}

    def run(
        self, *arguments: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """One command; its output is captured."""
        done = subprocess.run(
            self.argv(*arguments),
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
            **options,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def argv(self, *arguments: str) -> list[str]:
        """How a command is called."""
        return [SWARMESH, *arguments]

    def json(self, *arguments: str, **options: Any) -> Any:
        """One command's JSON."""
        return json.loads(self.run(*arguments, "--json", **options).stdout)

    @property
    def url(self) -> str:
        """Where the queen listens."""
        return str(json.loads((self.home / "queen.json").read_bytes())["url"])

    @property
    def key(self) -> str:
        """The admin key."""
        return (self.home / "admin.key").read_text().strip()

    def http(self) -> httpx.Client:
        """A client with the key."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=30)

    def openai(self, **options: Any) -> openai.OpenAI:
        """The unmodified OpenAI client."""
        settings: dict[str, Any] = {"api_key": self.key, "max_retries": 0, "timeout": 60, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **settings)

    def said(self) -> str:
        """The end of the queen's log, for who wonders why she failed."""
        return (self.home / "logs" / "queennode.log").read_text(errors="replace")[-LOG_CHARS_SHOWN:]

    def rustbees(self) -> list[dict[str, Any]]:
        """What the list shows."""
        with self.http() as client:
            answer = client.get("/v2/swarmesh/rustbees")
        assert answer.is_success, (answer.text, self.said())
        rows: list[dict[str, Any]] = answer.json()["rustbees"]
        return rows

    def until(self, condition: Callable[[], Any], *, timeout_s: float = 15.0, what: str = "") -> Any:
        """Wait for a truthy answer; the deadline is generous, the step short."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError(f"not within {timeout_s} s: {what or condition}")


def is_alive(pid: int) -> bool:
    """Whether a process lives; zombies do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
