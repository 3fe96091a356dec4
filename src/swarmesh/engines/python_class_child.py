"""``python -m swarmesh.engines.python_class_child``: a user's class, served to its agent."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import Any, Final

from swarmesh.core.errors import EngineStartError
from swarmesh.engines.child import ChildChannel, ChildReport
from swarmesh.engines.python_class import PythonClassRunner, load_class
from swarmesh.engines.task_server import TaskServer
from swarmesh.wire.spec import Backend

STOP_TIMEOUT_S: Final = 2.0
"""What a class's ``stop`` may take; then the process ends without it."""


def main() -> None:
    """Serve until the agent says or is gone."""
    channel = ChildChannel()
    channel.end_with_agent()
    spec = channel.order.spec
    try:
        worker = load_class(spec.class_path, spec.python_path)
    except EngineStartError as error:
        sys.exit(f"{error.message}. {error.hint}")
    asyncio.run(_serve(worker, channel))


async def _serve(worker: Any, channel: ChildChannel) -> None:
    spec = channel.order.spec
    await _call(worker, "start")
    runner = PythonClassRunner(worker, spec.slots)
    server = TaskServer(runner, key=channel.order.engine_key, model=spec.modelcell)
    await server.listen(spec.engine_socket_path)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    channel.report(ChildReport(runner.slots, 0, Backend.PYTHON))
    await ended.wait()
    await server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await _call(worker, "stop")


async def _call(worker: Any, name: str) -> None:
    method = getattr(worker, name, None)
    if method is not None:
        await method()


if __name__ == "__main__":
    main()
