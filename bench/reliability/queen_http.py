"""The queen's public routes as the harness uses them: one kept connection per thread, nothing sent twice unasked."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Mapping
from typing import Any, Final

CALL_TIMEOUT_S: Final = 60.0
"""Longer than anything a stream may be silent for; what takes longer hangs."""


class NoAnswerError(Exception):
    """The connection broke before there was an answer; whether the request was taken is unknown."""


class RefusedError(Exception):
    """The queen answered with an error; its code is the message's first word."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        try:
            error = json.loads(body)["error"]
            self.code, words = str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            self.code, words = f"http_{status}", body[:200].decode("utf-8", "replace")
        super().__init__(f"{self.code} {words}")


class QueenHttp:
    """Calls to one queen, from any number of threads, across her deaths.

    Args:
        port: Of 127.0.0.1; the same in every life of hers.
        key: The admin key.
    """

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close what threads have kept open."""
        for connection in self._opened:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON of a route; asked a second time when a kept connection turns out to be an old life's.

        Raises:
            NoAnswerError: She is not there.
            RefusedError: She says no.
        """
        try:
            return self._json("GET", path, None, {})
        except NoAnswerError:
            return self._json("GET", path, None, {})

    def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        """Send once and return the JSON of the answer.

        Raises:
            NoAnswerError: It may or may not have been taken.
            RefusedError: She says no.
        """
        return self._json("POST", path, body, headers or {})

    def delete(self, path: str) -> Any:
        """As `post`."""
        return self._json("DELETE", path, None, {})

    def open(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Begin an exchange on a connection of its own, for streams; the caller closes it.

        Raises:
            NoAnswerError: No head of an answer came.
            RefusedError: She says no.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CALL_TIMEOUT_S)
        response = self._send(connection, method, path, body, headers or {})
        if response.status < 400:
            return connection, response
        content = response.read()
        connection.close()
        raise RefusedError(response.status, content)

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> Any:
        connection = self._kept()
        try:
            response = self._send(connection, method, path, body, headers)
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NoAnswerError(str(error)) from error
        if response.status >= 400:
            raise RefusedError(response.status, content)
        return json.loads(content) if content else None

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, content, {**self._headers, **headers})
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NoAnswerError(str(error) or type(error).__name__) from error

    def _kept(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CALL_TIMEOUT_S)
            self._local.connection = connection
            self._opened.append(connection)
        return connection
