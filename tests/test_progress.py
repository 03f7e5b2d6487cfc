"""Bars on a terminal, nothing elsewhere."""

import io
import subprocess
import sys

from skipmodal import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_with_rate_and_time_left_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "DELAY", 0)
    with progress.progress(10, 2, "rows") as advance:
        advance(8)
        progress.say("a line")
    assert "a line\n" in terminal.getvalue()
    assert "10/10" in terminal.getvalue() and "rows/s" in terminal.getvalue()


def test_elsewhere_it_is_quiet_and_imports_nothing():
    script = "from skipmodal.progress import progress\nimport sys\nwith progress(9) as advance: advance(9)\n"
    script += "print('tqdm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
