"""What the user can fix: one line, no traceback, exit status 1."""


class UserError(Exception):
    """A problem the user can solve; the message says what, where and what to do."""
