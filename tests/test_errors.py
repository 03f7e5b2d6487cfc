"""An error is one line that a terminal can be given."""

import pickle

from skipmodal.errors import UserError, first_few


def test_a_message_is_one_printable_line():
    assert str(UserError("a\r\nb \x1b[31m \0 é 犬 \ud800\u2028c")) == "a b \\x1b[31m \\x00 é 犬 \\ud800 c"
    assert str(UserError("two  spaces\n")) == "two  spaces"


def test_it_survives_the_way_between_processes():
    assert str(pickle.loads(pickle.dumps(UserError("a: b\nc")))) == "a: b c"


def test_the_first_few_of_a_list_say_how_many_more_there_are():
    assert first_few(["a", "b", "c"], 2) == ["a", "b", "and 1 more"]
    assert first_few(["a", "b"], 2) == ["a", "b"] and first_few([], 2) == []
