"""Stands in for a llama-server that is wedged: from its first completion on it accepts and never answers.

A model named ``deaf-burns`` makes it use a processor all the while, as one does that reads a long prompt.
"""

import json
import socket
import sys
import threading

BURNS = "deaf-burns"
ANSWERS = {
    b"/health": {"status": "ok"},
    b"/props": {"total_slots": 2, "default_generation_settings": {"n_ctx": 128}},
    b"/slots": [{"is_processing": False}, {"is_processing": False}],
    b"/apply-template": {"prompt": "hi"},
}

if "--list-devices" in sys.argv:
    sys.stdout.write("Available devices:\n")
    sys.exit(0)

deaf = threading.Event()


def burn() -> None:
    deaf.wait()
    while True:
        continue


def serve(connection: socket.socket) -> None:
    heard = b""
    while not deaf.is_set() and (data := connection.recv(65536)):
        heard += data
        if heard.endswith((b"\r\n\r\n", b"}")) and (heard.endswith(b"}") or b"content-length" not in heard):
            target = heard.split(b" ", 2)[1]
            heard = b""
            if target not in ANSWERS:
                deaf.set()
                break
            body = json.dumps(ANSWERS[target]).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    threading.Event().wait()


if BURNS in sys.argv:
    threading.Thread(target=burn, daemon=True).start()
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[sys.argv.index("--host") + 1])
listening.listen()
while True:
    accepted, _ = listening.accept()
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
