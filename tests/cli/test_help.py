"""Help has an example of every command, and the shell completes the names of recipes."""

import os
import re
import subprocess
import sys

from typer.main import get_command

from skipmodal.cli.app import app
from skipmodal.recipe import recipe_names

SCRIPT = "import sys; sys.argv = ['skipmodal']; from skipmodal.cli.app import main; main()"


def commands(group, name=""):
    for key, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name}{key} ")
        else:
            yield f"{name}{key}", command


def test_every_command_has_an_example_of_options_that_it_has():
    found = dict(commands(get_command(app)))
    assert len(found) > 12
    for name, command in found.items():
        (example,) = re.findall(r"Example: skipmodal (.*)", command.help)
        assert example.startswith(name), name
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in example.split() if re.match("--?[a-z]", word)} <= known, name


def test_the_shell_completes_recipes():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True,
        env={**os.environ, "_SKIPMODAL_COMPLETE": "complete_bash", "COMP_WORDS": "skipmodal train memory",
             "COMP_CWORD": "2"},
    )  # fmt: skip
    assert set(done.stdout.split()) == {name for name in recipe_names() if name.startswith("memory")}
