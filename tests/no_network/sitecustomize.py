"""Forbids connections to other machines: in the tests and, from PYTHONPATH, in every Python that they start."""

import socket
import sys

_HERE = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", socket.gethostname()}
_EVENTS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}


def _check(event: str, arguments: tuple) -> None:
    if event not in _EVENTS:
        return
    host = arguments[_EVENTS[event]]
    if isinstance(host, tuple):  # an address; that of a socket in the file system is a string
        host = host[0]
    elif event in ("socket.connect", "socket.sendto"):
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in _HERE and not str(host).startswith("127."):
        raise ConnectionError(f"a test tried to reach {host}")


sys.addaudithook(_check)
