"""The Python SDK: `Swarmesh` for ordinary programs, `AsyncSwarmesh` for asyncio ones.

>>> from swarmesh.client import Swarmesh, Token
>>> with Swarmesh() as swarm:
...     for event in swarm.stream("What is a rustbee?", modelcell="demo"):
...         if isinstance(event, Token):
...             print(event.text, end="", flush=True)
"""

from swarmesh.client.asynchronous import AsyncSwarmesh, AsyncTokenStream
from swarmesh.client.blocking import Swarmesh, TokenStream
from swarmesh.client.cursor import Reconnects
from swarmesh.client.events import Done, Event, Progress, Token
from swarmesh.client.routes import TaskOptions
from swarmesh.core.errors import QueenUnreachableError
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import HostView, Step

__all__ = [
    "AsyncSwarmesh",
    "AsyncTokenStream",
    "Done",
    "Event",
    "HostView",
    "Progress",
    "QueenUnreachableError",
    "Reconnects",
    "RemoteError",
    "Step",
    "Swarmesh",
    "TaskOptions",
    "Token",
    "TokenStream",
]
