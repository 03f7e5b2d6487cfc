"""Runs `skipmodal` and Python in forks of one process that has imported torch: python forks.py serve SOCKET, and then
python forks.py SOCKET skipmodal ARGUMENT ... or python forks.py SOCKET python CODE, with the caller's folder and
standard streams. Importing torch anew for every command of the documentation would take minutes.
"""

import json
import os
import signal
import socket
import sys


def serve(path: str) -> None:
    """Answers one connection after the other, each by a fork, until it is killed."""
    import torch

    from skipmodal.cli.app import main
    from skipmodal.evaluation import embedding, report  # noqa: F401
    from skipmodal.training import loop  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(8)
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            _answer(connection, main)
        connection.close()


def _answer(connection: socket.socket, main) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    request = json.loads(data)
    for stream, given in enumerate(streams):
        os.dup2(given, stream)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(request["cwd"])
    program, *sys.argv[1:] = request["argv"]
    status: object = 0
    try:
        exec(sys.argv[1], {"__name__": "__main__"}) if program == "python" else main()
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([int(str(status))]))
    os._exit(0)


def ask(path: str, argv: list[str]) -> int:
    """The exit status of a command that the server ran."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = json.dumps({"argv": argv, "cwd": os.getcwd()}).encode()
        socket.send_fds(connection, [request], [0, 1, 2])
        answer = connection.recv(1)
    return answer[0] if answer else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
