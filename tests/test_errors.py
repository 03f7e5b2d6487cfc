"""An error is one line that a terminal can be given."""

import pickle

from skipmodal.errors import UserError


def test_a_message_is_one_printable_line():
    assert str(UserError("a\r\nb \x1b[31m \0 é 犬 \ud800\u2028c")) == "a b \\x1b[31m \\x00 é 犬 \\ud800 c"
    assert str(UserError("two  spaces\n")) == "two  spaces"


def test_it_survives_the_way_between_processes():
    assert str(pickle.loads(pickle.dumps(UserError("a: b\nc")))) == "a: b c"
