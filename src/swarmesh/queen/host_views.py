"""A host as people see it."""

from __future__ import annotations

import msgspec

from swarmesh.core.ids import LOCAL_HOST
from swarmesh.hosts.host import HostFacts
from swarmesh.hosts.ssh_host import SshHost
from swarmesh.store.records import HostRecord
from swarmesh.wire.errors import error_body
from swarmesh.wire.hosts import GpuView, HostStatus, HostView


def local_view(facts: HostFacts | None, *, free_mib: int, bees: tuple[str, ...], since_s: float) -> HostView:
    """The queen's own machine."""
    view = HostView(
        name=LOCAL_HOST,
        address=LOCAL_HOST,
        status=HostStatus.LOCAL,
        proximity=1.0,
        free_mib=free_mib,
        rustbees=bees,
        since_s=round(since_s, 3),
    )
    return _with_facts(view, facts)


def remote_view(
    record: HostRecord, host: SshHost, facts: HostFacts | None, *, free_mib: int, bees: tuple[str, ...]
) -> HostView:
    """A machine that is reached by SSH; what it has is as it was last measured."""
    view = HostView(
        name=record.name,
        address=record.address,
        user=record.user,
        port=record.port,
        status=host.status,
        draining=record.draining,
        proximity=record.proximity,
        fingerprint=record.fingerprint,
        free_mib=free_mib,
        rustbees=bees,
        since_s=round(host.since_s, 3),
        error=error_body(host.error) if host.error is not None else None,
    )
    return _with_facts(view, facts)


def _with_facts(view: HostView, facts: HostFacts | None) -> HostView:
    if facts is None:
        return view
    return msgspec.structs.replace(
        view,
        version=facts.version,
        system=facts.system,
        machine=facts.machine,
        python=facts.python,
        home=facts.layout.root,
        cpu_cores=facts.cpu_cores,
        total_mib=facts.total_mib,
        available_mib=facts.available_mib,
        disk_free_mib=facts.disk_free_mib,
        gpus=tuple(
            GpuView(index=g.index, name=g.name, backend=g.backend, total_mib=g.total_mib, free_mib=g.free_mib)
            for g in facts.gpus
        ),
    )
