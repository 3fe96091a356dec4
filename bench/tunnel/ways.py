"""The ways from the queen to the workers that are compared: sockets of her own machine, and the same through SSH."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.relay.contenders import Queen
from bench.relay.process_tree import ProcessTree
from bench.relay.summary import DIRECT

from .ssh import Tunnel

WITH_SESSION: Final = "ssh with a session"
WITHOUT_SESSION: Final = "ssh -N"


class Direct(Queen):
    """The queen as she ships, with workers on sockets of this machine."""

    name = DIRECT

    def __init__(self, sockets: list[Path]) -> None:
        super().__init__()
        self.sockets = sockets

    def urls(self, worker_ports: list[int], home: Path) -> list[str]:  # noqa: ARG002 - the workers have sockets here
        """The workers' own sockets."""
        return [f"unix:{path}" for path in self.sockets]

    @property
    def parts(self) -> dict[str, ProcessTree]:
        """Who works for a chunk on its way, each measured for itself."""
        assert self.tree is not None, "it runs"
        return {"queen": self.tree}


class Tunnelled(Direct):
    """The same queen, and one SSH connection between her and all of the workers."""

    def __init__(self, sockets: list[Path], *, session: bool) -> None:
        super().__init__(sockets)
        self.name = WITH_SESSION if session else WITHOUT_SESSION
        self._session = session
        self._tunnel: Tunnel | None = None

    def prepare(self) -> str:
        """An OpenSSH client, and the queen's command."""
        Tunnel.version()
        return super().prepare()

    def urls(self, worker_ports: list[int], home: Path) -> list[str]:  # noqa: ARG002 - the workers have sockets here
        """Opens the connection, and returns where the workers' sockets appear on this side of it."""
        place = home / "ssh"
        place.mkdir(mode=0o700)
        self._tunnel = Tunnel(place, session=self._session)
        self._tunnel.open()
        local = [place / f"{number}.sock" for number in range(len(self.sockets))]
        for here, there in zip(local, self.sockets, strict=True):
            self._tunnel.forward(there, here)
        return [f"unix:{path}" for path in local]

    @property
    def parts(self) -> dict[str, ProcessTree]:
        """The queen and both ends of the connection."""
        assert self._tunnel is not None, "it runs"
        return {**super().parts, "ssh": self._tunnel.ssh, "sshd": self._tunnel.sshd}

    def stop(self) -> None:
        """Ends the queen, then the connection."""
        super().stop()
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None
