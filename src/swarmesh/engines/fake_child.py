"""``python -m swarmesh.engines.fake_child``: the fake engine as a process, so that it can be killed like a real one."""

from __future__ import annotations

import asyncio
import signal
import sys

from swarmesh.core.errors import EngineStartError
from swarmesh.engines.child import ChildChannel, ChildReport
from swarmesh.engines.fake import FakeRunner, FakeSettings, read_settings
from swarmesh.engines.task_server import TaskServer
from swarmesh.wire.spec import Backend


def main() -> None:
    """Serve until the agent says or is gone."""
    channel = ChildChannel()
    channel.end_with_agent()
    try:
        settings = read_settings(channel.order.spec.class_path)
    except EngineStartError as error:
        sys.exit(error.message)
    asyncio.run(_serve(settings, channel))


async def _serve(settings: FakeSettings, channel: ChildChannel) -> None:
    spec = channel.order.spec
    await asyncio.sleep(settings.start_ms / 1000)
    runner = FakeRunner(settings, slots=spec.slots, context_tokens=spec.context_tokens)
    server = TaskServer(runner, key=channel.order.engine_key, model=spec.modelcell)
    await server.listen(spec.engine_socket_path)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    channel.report(ChildReport(runner.slots, spec.context_tokens, Backend.CPU))
    await ended.wait()
    await server.close()


if __name__ == "__main__":
    main()
