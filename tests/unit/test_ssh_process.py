"""The processes through which a host is spoken to, with children that say what no host should."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest
import uvloop

from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts import child_process
from swarmesh.hosts.install import MachineFacts
from swarmesh.hosts.remote_process import STDERR_BYTES_KEPT, STDERR_LINE_CHARS_MAX, STDERR_LINES_KEPT, RemoteProcess
from swarmesh.hosts.ssh_tool import OUTPUT_BYTES_MAX, run_tool
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.session import Hello, Reply

ORDER = {"action": "probe"}
Run = Callable[[Coroutine[Any, Any, None]], None]


def ended(code: int, said: str) -> SwarmeshError:
    return SwarmeshError(f"{code}: {said}")


async def saying(program: str) -> RemoteProcess:
    return await RemoteProcess.start([sys.executable, "-c", f"import sys, os\n{program}"], ORDER, ended)


async def test_standard_error_is_read_to_its_end_and_its_end_is_kept() -> None:
    process = await saying(
        "os.write(2, b'begin ' + b'x' * 20_000_000)\n"
        "for n in range(100): os.write(2, b'line %d %b\\n' % (n, b'y' * 100))\n"
        "os.write(2, b'z' * 5000)\n"
        "print('{}', flush=True)\n"
    )
    assert await process.line() == b"{}\n", "a flood without a line's end holds nothing up"
    with pytest.raises(SwarmeshError) as caught:
        await process.line()
    lines = caught.value.message.splitlines()
    assert len(lines) <= STDERR_LINES_KEPT + 1
    assert max(len(line) for line in lines) <= STDERR_LINE_CHARS_MAX + 1
    assert len(caught.value.message) <= STDERR_BYTES_KEPT + 200
    assert "line 99 yyy" in caught.value.message
    assert "begin" not in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        'b\'{"id": "0"}\'',
        'b\'{"id": "\\xff"}\'',
        "b'{' + b'\"a\":{' * 100_000",
        "b'{\"progress\": ' + b'[' * 100_000",
        'b\'{"id": 1, "status": "\\x1b[31m"}\'',
        "b'{}'",
    ],
    ids=["text", "not-utf8", "deep", "deep-raw", "control", "empty"],
)
async def test_what_is_something_else_is_a_named_error(line: str) -> None:
    for kind in (Reply, Hello, MachineFacts):
        process = await saying(f"sys.stdout.buffer.write({line} + b'\\n')")
        with pytest.raises(SwarmeshError, match="something else than expected") as caught:
            await process.read(kind)
        assert "\x1b" not in caught.value.message


async def test_an_error_that_is_told_is_plain() -> None:
    process = await saying(r"""print('{"error": {"code": "X Y", "message": "a\\u001b[31mb"}}')""")
    with pytest.raises(RemoteError) as caught:
        await process.line()
    assert (caught.value.code, caught.value.message, caught.value.status) == ("unexpected_answer", "a [31mb", 502)
    await process.close()


async def test_a_start_that_is_given_up_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[asyncio.subprocess.Process] = []
    began, create = asyncio.Event(), asyncio.create_subprocess_exec

    async def slowly(*argv: str, **options: object) -> asyncio.subprocess.Process:
        made.append(await create(*argv, **options))  # type: ignore[arg-type]  # as they came
        began.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return made[0]

    monkeypatch.setattr(child_process.asyncio, "create_subprocess_exec", slowly)
    starting = asyncio.create_task(saying("input()"))
    await began.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await made[0].wait() == -9
    assert not psutil.pid_exists(made[0].pid)


async def test_what_a_tool_says_is_bounded_and_read_to_its_end() -> None:
    code = "import os\nfor fd in (1, 2):\n    os.write(fd, b'a' * 3_000_000)\nraise SystemExit(3)"
    run = await run_tool([sys.executable, "-c", code], 30.0)
    assert (run.code, len(run.out), len(run.said)) == (3, OUTPUT_BYTES_MAX, OUTPUT_BYTES_MAX)


async def test_a_tool_that_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError):
        await run_tool([sys.executable, "-c", "input = open('/dev/zero', 'rb')\nwhile input.read(9): pass"], 0.05)
    assert not [child for child in psutil.Process().children() if "/dev/zero" in " ".join(words_of(child))]


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none when it has ended, also if nobody has taken note of that yet."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_is_sent_after_the_end_of_the_input_is_a_connection_error_on_both_loops(run: Run) -> None:
    async def send() -> None:
        process = await saying("sys.stdin.buffer.read()")
        process.end_input()
        try:
            await asyncio.wait_for(process.line(), 30)
        except SwarmeshError:
            for _ in range(2):  # What a transport of asyncio says of it, it says at the second write.
                await process.send(b"more")
        finally:
            process.kill()

    with pytest.raises(ConnectionError):
        run(send())
