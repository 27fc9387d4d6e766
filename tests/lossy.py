"""A line to a server that breaks at will, just before an answer comes through: what was asked may have been done."""

from __future__ import annotations

import contextlib
import socket
import threading


class Lossy:
    """Listens on `port` and passes all on to another port of this machine, until it is told to lose an answer."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._left = 0
        self.lost = 0
        self._lock = threading.Lock()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, number: int) -> None:
        """Break the line instead of passing on the answer of that number, from 1, counted from now on."""
        with self._lock:
            self._left = number

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self._loses_this():
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _loses_this(self) -> bool:
        with self._lock:
            if not self._left:
                return False
            self._left -= 1
            self.lost += self._left == 0
            return self._left == 0
