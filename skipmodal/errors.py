"""What the user can fix: one line, no traceback, exit status 1."""


class UserError(Exception):
    """A problem the user can solve; the message says what, where and what to do.

    It is one printable line, whatever a file's name or a library's message brings in.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Text with its line ends as spaces, and what a terminal would obey, or can't show, as escapes."""
    text = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
