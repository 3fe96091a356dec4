"""Memory of hosts, reserved before anything is spawned, so that none is promised twice (R-26)."""

from __future__ import annotations

from collections.abc import Sequence

from swarmesh.core.events import GpuMemory, HostProbed
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.memory_pool import GPU_USABLE_SHARE, HostMemory, Pool, PoolFree, allot, in_proportion
from swarmesh.core.shortage import not_enough


class MemoryBooks:
    """The books of every host: one pool for its main memory and one for each GPU that has memory of its own."""

    def __init__(self) -> None:
        self._hosts: dict[HostName, HostMemory] = {}
        self._home: dict[WorkerId, HostName] = {}

    def probed(self, event: HostProbed) -> None:
        """Take in a fresh measurement; promises stand. A GPU that it lacks has nothing to give meanwhile."""
        books = self._of(event.host)
        books.ram.measured(event.total_mib, event.available_mib)
        seen = {gpu.index: gpu for gpu in event.gpus}
        for index in {**books.gpus, **seen}:
            gpu = seen.get(index) or GpuMemory(index, 0, 0)
            _gpu_pool(books, index).measured(gpu.total_mib, gpu.available_mib)

    def reserve(
        self, worker_id: WorkerId, model: ModelName, host: HostName, need_mib: int, gpus: Sequence[int] = ()
    ) -> tuple[int, ...]:
        """Promise memory to a worker that is about to start: main memory, unless ``gpus`` says which GPUs it may use.

        Of those, the one with most free memory takes it all if it can, else each a part in proportion to what it has
        free. Returns the GPUs on which something was reserved.

        Raises:
            NotEnoughMemoryError: There is less than ``need_mib`` free, or the host was never probed.
        """
        books = self._hosts.get(host) or HostMemory()
        pools = books.of_gpus(gpus)
        parts = allot(pools, need_mib)
        if parts is None or host not in self._hosts:
            raise not_enough(model, host, need_mib, pools)
        return self._enter(worker_id, host, dict(zip(dict.fromkeys(gpus), parts, strict=False)), need_mib)

    def restore(self, worker_id: WorkerId, host: HostName, need_mib: int, gpus: Sequence[int]) -> None:
        """Put a worker that is alive back into the books, whatever they say: it holds its memory already.

        What it has on several GPUs is taken to be in proportion to their sizes. Harmless when it is in the books.
        """
        if not need_mib or worker_id in self._home:
            return
        sizes = [pool.total_mib for pool in self._of(host).of_gpus(gpus)]
        parts = in_proportion(need_mib, sizes if any(sizes) else [1] * len(sizes))
        self._enter(worker_id, host, dict(zip(dict.fromkeys(gpus), parts, strict=False)), need_mib)

    def settled(self, worker_id: WorkerId) -> None:
        """The worker has loaded its model: the host's own figures show it from now on."""
        for pool in self._pools_of(worker_id):
            pool.starting.discard(worker_id)

    def release(self, worker_id: WorkerId) -> None:
        """The worker is gone; harmless when nothing was promised to it."""
        for pool in self._pools_of(worker_id):
            pool.release(worker_id)
        self._home.pop(worker_id, None)

    def free(self, host: HostName) -> tuple[PoolFree, ...]:
        """What may still be promised there, main memory first; empty for a host that was never probed."""
        books = self._hosts.get(host)
        pools = books.pools() if books is not None else []
        return tuple(PoolFree(pool.label, pool.free_mib, pool.total_mib) for pool in pools if pool.total_mib)

    def of_host(self, host: HostName) -> HostMemory | None:
        """One host's books, if it was ever probed or has a worker in them."""
        return self._hosts.get(host)

    def _enter(self, worker_id: WorkerId, host: HostName, on_gpus: dict[int, int], need_mib: int) -> tuple[int, ...]:
        books = self._of(host)
        self._home[worker_id] = host
        if not on_gpus:
            books.ram.promise(worker_id, need_mib)
            return ()
        used = {index: mib for index, mib in on_gpus.items() if mib}
        for index, mib in used.items():
            _gpu_pool(books, index).promise(worker_id, mib)
        return tuple(used)

    def _of(self, host: HostName) -> HostMemory:
        return self._hosts.setdefault(host, HostMemory())

    def _pools_of(self, worker_id: WorkerId) -> list[Pool]:
        host = self._home.get(worker_id)
        return self._hosts[host].pools() if host is not None else []


def _gpu_pool(books: HostMemory, index: int) -> Pool:
    return books.gpus.setdefault(index, Pool(f"gpu {index}", GPU_USABLE_SHARE))
