"""That the tests, and the commands that they start, would fail if they used the network: see tests/no_network."""

import socket
import subprocess
import sys

import pytest

ELSEWHERE = ("192.0.2.1", 9)  # a network that is reserved for documentation


def test_other_machines_are_out_of_reach():
    with pytest.raises(ConnectionError, match=r"tried to reach 192\.0\.2\.1"):
        socket.create_connection(ELSEWHERE, timeout=1)
    with pytest.raises(ConnectionError, match="tried to reach example"):
        socket.getaddrinfo("example.org", 80)


def test_other_machines_are_out_of_reach_of_commands():
    code = f"import socket; socket.create_connection({ELSEWHERE}, timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "tried to reach 192.0.2.1" in done.stderr


def test_this_machine_is_within_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
