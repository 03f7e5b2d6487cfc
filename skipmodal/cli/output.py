"""What commands print: results on stdout, everything else on stderr."""

from skipmodal.progress import say


def tell(message: str) -> None:
    """One line on stderr."""
    say(f"skipmodal: {message}")


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
