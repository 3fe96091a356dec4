"""A modelcell's file on its way: from the queen's disk to a host, and from a host to another one."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Final

from bench.reliability.plan import Plan

from .result import Row
from .swarm import Swarm, hosts

RUNS: Final = 3
MIB: Final = 1024 * 1024
SIZE_MIB: Final = 512
QUICK_SIZE_MIB: Final = 32
HOSTS: Final = ("one", "two")
MODELCELL: Final = "heavy"
WIDTH: Final = 1024


class Copying:
    """``swarmesh models copy``."""

    name = "copying"
    about = f"a modelcell of {SIZE_MIB} MiB copied to a host, then from there to another one through the queen"

    def run(self, plan: Plan) -> list[Row]:
        """See `Scenario`."""
        rates: dict[str, list[float]] = {"queen": [], "host": []}
        problems: list[str] = []
        with hosts(HOSTS) as swarm:
            path = swarm.home / "heavy.gguf"
            _write_model(path, QUICK_SIZE_MIB if plan.quick else SIZE_MIB)
            aside = path.with_suffix(".aside")
            swarm.command("models", "add", str(path), "--name", MODELCELL)
            for turn in range(plan.count(RUNS)):
                near = _rate(swarm, HOSTS[0], rates["queen"], problems)
                path.rename(aside)  # From here on only the first host has it.
                far = _rate(swarm, HOSTS[1], rates["host"], problems)
                aside.rename(path)
                for name, copied in zip(HOSTS, (near, far), strict=True):
                    swarm.machines[name].inside("rm", copied)
                shown = ", ".join(f"{way} {each[-1]:.0f} MiB/s" for way, each in rates.items())
                plan.say(f"{self.name} {turn + 1}: {shown}")
        return [
            Row(
                what="copied from the queen's disk to a host",
                values=tuple(rates["queen"]),
                unit="MiB/s",
                problems=tuple(problems),
            ),
            Row(what="copied from one host to another through the queen", values=tuple(rates["host"]), unit="MiB/s"),
        ]


def _rate(swarm: Swarm, to: str, rates: list[float], problems: list[str]) -> str:
    began_s = time.monotonic()
    copied = swarm.copy(MODELCELL, to)
    took_s = time.monotonic() - began_s
    if copied["sent_bytes"] != copied["size_bytes"]:
        problems.append(f"{copied['sent_bytes']:,} of {copied['size_bytes']:,} bytes were sent to {to}")
    rates.append(copied["sent_bytes"] / MIB / took_s)
    return str(copied["path"])


def _write_model(path: Path, size_mib: int) -> None:
    """A GGUF file whose weights are chance, so that nothing on its way makes it smaller."""
    writer = importlib.import_module("gguf_writer")  # Beside the bed, whose directory is on the path by now.
    model = writer.llama()
    model.tensors.append(("blk.0.ffn_up.weight", (WIDTH, size_mib * MIB // 2 // WIDTH), 1))
    with path.open("wb") as file:
        file.write(model.header())
        left = model.data_bytes()
        while left:
            left -= file.write(os.urandom(min(left, MIB)))
