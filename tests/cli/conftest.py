"""The command line in this process, which has torch already."""

import io
import sys

import pytest


@pytest.fixture
def here(monkeypatch, capfdbinary):
    """Runs a command: returns its status, stdout and stderr."""
    from skipmodal.cli.app import main

    def call(*args, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["skipmodal", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
            if isinstance(status, str):
                sys.stderr.write(status + "\n")
                status = 1
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return call
