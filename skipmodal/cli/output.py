"""What commands print: results on stdout, everything else on stderr."""

import json
from typing import Any

from skipmodal.progress import say


def tell(message: str) -> None:
    """One line on stderr."""
    say(f"skipmodal: {message}")


def json_line(record: dict[str, Any]) -> str:
    """One line of JSON in readable UTF-8; a file's name that isn't UTF-8 is escaped."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
