"""What breaks between the queen and her hosts: streams go on, workers are found again, copies are not begun anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bench.reliability.chat import Chat
from bench.reliability.question import Question
from bench.reliability.recital import SONG
from bench.reliability.sight import Sight, Silence, difference

from fault_proxy import CUT, GOOD, HALF_OPEN, Faults, Trickle
from host_swarm import ADD_TIMEOUT_S, SWARMESH_DIR, Trio, in_background
from swarmesh.models.demo import DEMO_GGUF

GAP_S_MAX = 6.0
BACK_S_MAX = 15.0
ADOPTED_S_MAX = 5.0
QUEENS_KILLED_MAX = 3
"""What else the machine does at a moment may make one of them late."""
CUT_AT = 60
RECITAL_CUT_AT = 20
TRIES = 4
NOTICED_MS = 500
"""A stream that stands still for so long was broken; the engine pauses for less."""
PACED = ("--type", "python", "--modelcell", "paced", "--class", "fake:tokens=240,tokens_per_s=50", "--slots", "4")
STORY = Question("paced", "What did the bees do all night?")
COPY_PACE = Trickle(bytes_at_once=16_384, interval_ms=10)


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def whole(trio: Trio) -> None:
    trio.whole()


@pytest.fixture
def chat(trio: Trio) -> Iterator[Chat]:
    with closing(Chat(f"{trio.swarm.url}/v1", trio.swarm.key)) as surface:
        yield surface


@pytest.fixture(scope="module")
def paced(trio: Trio) -> Iterator[tuple[dict[str, str], Sight]]:
    """A slow model on the last two hosts: which rustbee is on which, and what it tells while nobody breaks anything."""
    bees = {trio.swarm.spawn(host, *PACED)["rustbee_id"]: host for host in ("bee-2", "bee-3")}
    # Of two streams one has to be on each: the better rustbee, or the one that has read the prompt, might get both.
    trio.swarm.run("policy", "use", "round-robin", "--modelcell", "paced")
    with closing(Chat(f"{trio.swarm.url}/v1", trio.swarm.key)) as surface:
        unbroken = surface.ask(STORY)
    assert unbroken.whole, unbroken.error
    yield bees, unbroken
    trio.whole()
    for rustbee_id in bees:
        trio.swarm.run("rustbees", "stop", rustbee_id, "--grace", "0", check=False)


def test_a_cut_link_in_the_middle_of_the_recital(trio: Trio, chat: Chat) -> None:
    unbroken = chat.ask(SONG)
    assert unbroken.whole, unbroken.error
    before = trio.swarm.engines()
    for _ in range(TRIES):
        sight, silence = recital_cut(trio, chat, before)
        host = before[sight.rustbee_id][0]
        print(f"{host} cut at token {RECITAL_CUT_AT}: {silence}")  # Shown with pytest -s.
        differs = difference(sight, unbroken)
        assert differs.identical, (sight.error, differs)
        assert differs.usage_equal
        assert silence is not None
        assert silence.gap_ms <= 1000 * GAP_S_MAX
        # Shorter cuts leave the connection alone; then its next waggle makes the suspect a healthy one.
        trio.swarm.host_until(host, "unreachable")
        mended_s = time.monotonic()
        trio.machines[host].mend()
        trio.swarm.until(
            lambda: trio.swarm.engines() == before, timeout_s=BACK_S_MAX, what="the same engine serves again"
        )
        print(f"healthy {time.monotonic() - mended_s:.1f} s after the link came back")
        if silence.gap_ms >= NOTICED_MS:
            return
    pytest.fail("the fault came too late each time: all of the song was on its way already")


def recital_cut(trio: Trio, chat: Chat, engines: dict[str, tuple[str, int]]) -> tuple[Sight, Silence | None]:
    """The song with a cut link in it; the engine stands still while that is done, for it is fast."""
    cut_s: list[float] = []
    # Found beforehand: an engine that is looked for first is done with the song by then.
    found = {name: trio.machines[host].process(pid) for name, (host, pid) in engines.items() if host in trio.machines}

    def pull(sight: Sight) -> None:
        if sight.count == RECITAL_CUT_AT:
            engine = found[sight.rustbee_id]
            engine.suspend()
            trio.machines[engines[sight.rustbee_id][0]].cut()
            cut_s.append(time.monotonic())
            engine.resume()

    sight = chat.ask(SONG, pull)
    return sight, sight.silence(cut_s[0])


@pytest.mark.parametrize("fault", [CUT, HALF_OPEN, None], ids=["cut", "half open", "reset"])
def test_a_bad_wire_in_the_middle_of_a_slow_stream(
    trio: Trio, chat: Chat, paced: tuple[dict[str, str], Sight], fault: Faults | None
) -> None:
    bees, unbroken = paced
    before = trio.swarm.engines()
    sights = [Sight(), Sight()]  # Of two streams at a time one is there and one elsewhere.
    readers = [threading.Thread(target=chat.ask, args=(STORY,), kwargs={"sight": sight}) for sight in sights]
    for reader in readers:
        reader.start()
    trio.swarm.until(lambda: all(sight.count > CUT_AT for sight in sights), what="two streams under way")
    assert {bees[sight.rustbee_id] for sight in sights} == set(bees.values())
    struck_s = time.monotonic()
    if fault is None:
        trio.proxy.drop()
    else:
        trio.proxy.faults = fault
    for reader in readers:
        reader.join()
    silences = [sight.silence(struck_s) for sight in sights]
    print(f"{silences}")  # Shown with pytest -s.
    for sight, silence in zip(sights, silences, strict=True):
        differs = difference(sight, unbroken)
        assert differs.identical, (sight.error, differs)
        assert differs.usage_equal
        assert silence is not None
        assert silence.gap_ms <= 1000 * GAP_S_MAX
    trio.proxy.faults = GOOD
    trio.swarm.until(lambda: trio.swarm.engines() == before, timeout_s=BACK_S_MAX, what="the same engines serve again")


def test_kill_9_of_the_queen(trio: Trio) -> None:
    before = trio.swarm.engines()
    assert {host for host, _ in before.values()} == set(trio.machines)
    took_s: list[float] = []
    while not took_s or (took_s[-1] > ADOPTED_S_MAX and len(took_s) < QUEENS_KILLED_MAX):
        trio.swarm.kill_queen()
        trio.swarm.start()
        trio.swarm.until(lambda: trio.swarm.engines() == before, timeout_s=30, what=f"adopted: {before}")
        with trio.swarm.http() as client:
            took_s.append(client.get("/v2/swarmesh/health").json()["uptime_s"])
        print(f"{len(before)} rustbees on three hosts adopted {took_s[-1]:.1f} s after the start of the queen")
        assert len(trio.swarm.rustbees()) == len(before)
    assert min(took_s) <= ADOPTED_S_MAX


def test_a_host_that_was_switched_off_comes_back(trio: Trio) -> None:
    machine = trio.machines["bee-1"]
    machine.power_off()
    row = trio.swarm.host_until("bee-1", "unreachable")
    assert row["error"]["code"]
    assert trio.swarm.hosts()["bee-1"]["error"]
    refused = trio.swarm.run("spawn", "rustbee", "--host", "bee-1", "--modelcell", "demo", check=False)
    assert refused.returncode != 0
    machine.power_on()
    trio.swarm.host_until("bee-1", "connected", timeout_s=BACK_S_MAX)
    trio.swarm.until(lambda: trio.demo_on("bee-1") is None, what="its rustbee has died with it")
    assert trio.swarm.spawn("bee-1")["status"] == "healthy"


def test_an_interrupted_copy_goes_on_where_it_was(trio: Trio, tmp_path: Path) -> None:
    content = DEMO_GGUF.read_bytes() + b"\0\0"
    file = tmp_path / "interrupted.gguf"
    file.write_bytes(content)
    trio.swarm.run("models", "add", str(file), "--name", "interrupted")
    copy = ("models", "copy", "interrupted", "--to", trio.slow, "--json")
    trio.proxy.faults = Faults(trickle=COPY_PACE)
    up = trio.proxy.traffic.bytes_up
    with in_background(trio.swarm, *copy) as done:
        trio.swarm.until(lambda: trio.proxy.traffic.bytes_up > up + len(content) // 2, what="half of it is there")
        trio.proxy.faults = CUT
        trio.swarm.host_until(trio.slow, "unreachable")
        trio.proxy.drop()  # What was on its way has fallen out of the wire.
        trio.proxy.faults = GOOD
        trio.swarm.host_until(trio.slow, "connected")
    print(f"the interrupted copy ended with {done[0].returncode}: {done[0].stdout[-300:]} {done[0].stderr[-300:]}")
    copied = trio.swarm.json(*copy[:-1], timeout_s=ADD_TIMEOUT_S)
    sent = trio.proxy.traffic.bytes_up - up
    print(f"{sent:,} bytes in all for {len(content):,}, {copied['sent_bytes']:,} of them by the second copy")
    (there,) = trio.machines[trio.slow].host_dir.glob(f"{SWARMESH_DIR}/hives/*/models/**/interrupted*.gguf")
    assert there.read_bytes() == content
    assert copied["sent_bytes"] < len(content)
    assert sent < 1.5 * len(content), "half of it was not sent twice"
