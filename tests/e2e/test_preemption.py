"""A person does not wait behind a batch, and the batch loses nothing by it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

TOKENS, TOKENS_PER_S = 300, 100
BEGUN_S = 0.5
CHAT = "/v1/chat/completions"


def body(text: str, priority: str, **more: Any) -> dict[str, Any]:
    return {"model": "fake", "priority": priority, "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def one_slot(fresh: Any) -> Any:
    """A swarm with a single slot; an answer of its engine takes three seconds."""
    fake = f"fake:tokens={TOKENS},tokens_per_s={TOKENS_PER_S}"
    fresh.run("spawn", "rustbee", "--type", "python", "--modelcell", "fake", "--class", fake, "--slots", "1")
    return fresh


def busy(swarm: Any) -> bool:
    return bool(swarm.rustbees()[0]["slots_busy"])


@pytest.mark.parametrize("surface", ["whole chat", "nectarflow"])
def test_the_slot_of_a_batch_is_taken_and_given_back(one_slot: Any, surface: str) -> None:
    with one_slot.http() as client, ThreadPoolExecutor() as threads:

        def batch() -> tuple[str, Any]:
            if surface == "whole chat":
                answer = client.post(CHAT, json=body("a batch", "low")).json()
                # What the engine still knew of the prompt is another number the second time.
                return answer["choices"][0]["message"]["content"], answer["usage"]["total_tokens"]
            flow = {"prompt": "a batch", "modelcell": "fake", "priority": "low"}
            job = client.post("/v2/swarmesh/nectarflow", json=flow).json()["job_id"]
            status = f"/v2/swarmesh/nectarflow/{job}"
            one_slot.until(lambda: client.get(status).json()["status"] == "done", what="the batch is done")
            assert client.get(status).json()["attempts"] == attempts
            tokens = client.get(f"/v2/swarmesh/honeytokens/{job}").json()
            return tokens["text"], tokens["usage"]

        attempts = 1
        unbroken = batch()
        attempts = 2
        running = threads.submit(batch)
        one_slot.until(lambda: busy(one_slot), what="the batch runs")
        time.sleep(BEGUN_S)  # So that there is something to go on from; less would do.
        with client.stream("POST", CHAT, json=body("a person", "high", stream=True, max_tokens=5)) as answer:
            next(line for line in answer.iter_lines() if line.startswith("data: "))
            # Without taking the only slot it would have waited for the rest of the batch's answer.
            assert not running.done()
        assert running.result() == unbroken


def test_who_must_not_be_preempted_is_not(one_slot: Any) -> None:
    with one_slot.http() as client, ThreadPoolExecutor() as threads:
        running = threads.submit(lambda: client.post(CHAT, json=body("a person", "medium")))
        one_slot.until(lambda: busy(one_slot), what="it runs")
        second = client.post(CHAT, json=body("another", "high", max_tokens=1))
        assert running.result().headers["x-swarmesh-attempts"] == "1"
        assert int(second.headers["x-swarmesh-queue-ms"]) > 500
