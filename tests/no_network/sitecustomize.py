"""Forbids connections to other machines: in the tests and, from PYTHONPATH, in every Python that they start."""

import socket
import sys


def _own() -> str | None:
    """This machine's address towards others, at which Ray's parts find each other. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of no machine (RFC 5737)
        except OSError:
            return None
        return str(probe.getsockname()[0])


_HERE = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", socket.gethostname(), _own()}
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
