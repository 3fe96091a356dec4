"""The one door: a key first, then the relay, the streaming flow routes, or the control plane."""

from __future__ import annotations

from typing import Final

import structlog

from swarmesh.core.errors import InternalError, SwarmeshError
from swarmesh.net.asgi import AsgiBridge
from swarmesh.net.exchange import Exchange
from swarmesh.queen.background import BackgroundChats
from swarmesh.queen.flow_routes import FlowRoutes
from swarmesh.queen.keys import KeyRing, Role
from swarmesh.queen.relay import Relay

log = structlog.get_logger("front")

_CLIENTS: Final = (Role.ADMIN, Role.CLIENT)  # A member of an enum costs a call each time it is taken from its class.


class Front:
    """The application behind the port (see `swarmesh.net.server.Application`)."""

    def __init__(
        self,
        keys: KeyRing,
        relay: Relay,
        background: BackgroundChats,
        flow_routes: FlowRoutes,
        control: AsgiBridge,
    ) -> None:
        self._background = background
        self._keys = keys
        self._relay = relay
        self._flow_routes = flow_routes
        self._control = control

    def __call__(self, exchange: Exchange) -> None:
        """Answer one exchange; nothing a client sends makes this raise."""
        try:
            self._answer(exchange)
        except SwarmeshError as error:
            exchange.fail(error)
        except Exception:  # The outermost edge: one request must not take the connection's others along
            log.exception("request_failed", path=exchange.request.path.decode("latin-1"))
            if exchange.started:
                exchange.finish(keep_alive=False)
            else:
                exchange.fail(InternalError(), keep_alive=False)

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        identity = self._keys.identify(request.header(b"authorization"))
        path = request.path
        if request.method == "POST" and self._relay.serves(path):
            identity.must_be(*_CLIENTS)
            self._relay.take(exchange, identity)
        elif self._flow_routes.serves(request.method, path):
            identity.must_be(*_CLIENTS)
            self._flow_routes.take(exchange, identity)
        elif self._background.serves(request.method, path):
            identity.must_be(*_CLIENTS)
            self._background.take(exchange, identity)
        else:
            self._control(exchange, {"identity": identity})
