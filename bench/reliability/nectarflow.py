"""Nectarflows by plain HTTP: streams, and followers that come back after every break."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from typing import Any, Final

from .queen_http import NoAnswerError, QueenHttp, RefusedError
from .question import OnToken, Question, ignore
from .sight import Sight
from .sse import Event, events_of

SUBMIT: Final = "/v2/swarmesh/nectarflow"
ENDS: Final = ("done", "error")
RETURN_EVERY_S: Final = 0.05
RETURN_FOR_S: Final = 60.0


class Nectarflow:
    """`Question`s as ``POST /v2/swarmesh/nectarflow`` with ``stream``."""

    name = "nectarflow"

    def __init__(self, queen: QueenHttp) -> None:
        self._queen = queen

    def ask(self, question: Question, on_token: OnToken = ignore, sight: Sight | None = None) -> Sight:
        """See `Surface`."""
        return self._read(sight or Sight(), on_token, "POST", SUBMIT, body_of(question, stream=True))

    def submit(self, question: Question, headers: dict[str, str] | None = None) -> str:
        """Hand it in and return the job id, which is the promise that it will be done.

        Raises:
            NoAnswerError: No promise was made.
            RefusedError: It was refused.
        """
        return str(self._queen.post(SUBMIT, body_of(question, stream=False), headers)["job_id"])

    def view(self, job_id: str) -> dict[str, Any]:
        """Its state."""
        view: dict[str, Any] = self._queen.get(f"{SUBMIT}/{job_id}")
        return view

    def tokens(self, job_id: str) -> dict[str, Any]:
        """What it produced, from the hivecomb."""
        tokens: dict[str, Any] = self._queen.get(f"/v2/swarmesh/honeytokens/{job_id}")
        return tokens

    def health(self) -> dict[str, Any]:
        """How the swarm is."""
        health: dict[str, Any] = self._queen.get("/v2/swarmesh/health")
        return health

    def follow(self, job_id: str, on_token: OnToken = ignore, sight: Sight | None = None) -> Sight:
        """Read a job's events to their end, coming back after every break to the event after the last one seen.

        Every second return names its place in the address, the others by ``Last-Event-ID``.
        """
        sight = sight or Sight()
        sight.job_id = job_id
        give_up_s = time.monotonic() + RETURN_FOR_S
        for turn in itertools.count():
            last = sight.seqs[-1] if sight.seqs else 0
            query = f"?after={last}" if turn % 2 else ""
            headers = {"accept": "text/event-stream", **({} if turn % 2 else {"last-event-id": str(last)})}
            before = sight.count
            sight = self._read(sight, on_token, "GET", f"/v2/swarmesh/honeytokens/{job_id}{query}", None, headers)
            if sight.error != "cut":
                break
            if sight.count > before:
                give_up_s = time.monotonic() + RETURN_FOR_S
            if time.monotonic() > give_up_s:
                break
            time.sleep(RETURN_EVERY_S)
        return sight

    def _read(
        self,
        sight: Sight,
        on_token: OnToken,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: dict[str, str] | None = None,
    ) -> Sight:
        sight.error = ""
        over = False
        try:
            connection, response = self._queen.open(method, path, body, headers)
        except NoAnswerError:
            return sight.end("cut")
        except RefusedError as error:
            return sight.end(error.code)
        try:
            for event in events_of(response):
                if _take(sight, event):
                    on_token(sight)
                over = over or event.name in ENDS
        except UnicodeDecodeError:
            sight.odd.append("an event is not UTF-8")
            return sight.end("cut")
        except (OSError, http.client.HTTPException):
            return sight.end("cut")
        finally:
            connection.close()
        return sight if over else sight.end("cut")


def body_of(question: Question, *, stream: bool) -> dict[str, Any]:
    """The JSON of a submission."""
    return {"modelcell": question.modelcell, "prompt": question.prompt, "stream": stream, **question.options}


def _take(sight: Sight, event: Event) -> bool:
    """Note an event; whether it was a token."""
    data = json.loads(event.data)
    match event.name:
        case "token":
            if event.seq is not None:
                sight.seqs.append(event.seq)
            sight.ids_shown += len(event.token_ids)
            sight.add(data["text"])
            return True
        case "accepted":
            sight.job_id = data["job_id"]
        case "done":
            if sight.finish_reasons:
                sight.odd.append("done twice")
            sight.finish_reasons["0"] = data["finish_reason"]
            sight.take_usage(data["usage"])
            sight.end()
        case "error":
            sight.end(data["error"]["code"])
        case "progress":
            """It waits for a rustbee that is being started."""
        case other:
            sight.odd.append(f"an event called {other!r}")
    return False
