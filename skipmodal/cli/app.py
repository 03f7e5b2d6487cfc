"""The `skipmodal` command: collects the subcommands and turns errors into one line and an exit status.

Exit status: 0 done, 1 something the user can fix, 2 wrong usage, 130 interrupted.
Nothing here or in the command files imports torch before a command runs.
"""

import errno
import io
import os
import re
import sys
from typing import Annotated

import typer

from skipmodal import __version__
from skipmodal.cli import checkpoints, demo, evaluate, prep, retrieve, study, sweep, synthesis, train
from skipmodal.errors import UserError, one_line

app = typer.Typer(
    name="skipmodal",
    help="Skip-modal generation: translate between image, text and speech, trained without image-speech pairs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(prep.app, name="prep")
app.add_typer(retrieve.app, name="retrieve")
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("eval")(evaluate.evaluate)
app.command("info")(checkpoints.info)
app.command("calibrate")(checkpoints.calibrate)
app.command("export")(checkpoints.export)
app.command("average")(checkpoints.average)
app.command("demo")(demo.demo)
app.add_typer(study.app, name="study")
synthesis.register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"skipmodal {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: runs the command line, maps every expected failure to its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files needn't be Unicode
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        sys.exit(f"skipmodal: error: {error}")  # status 1
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP):  # a path that was given, whoever looks at it
            sys.exit(f"skipmodal: error: {one_line(str(error.filename))}: cannot be used ({error.strerror})")
        if error.filename is not None:  # what fails at a file is told where it does: this is a fault of ours
            raise
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF):
            sys.exit(f"skipmodal: error: {one_line(error.strerror or str(error))}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or what is left for stdout would fail once more at exit
        sys.exit(f"skipmodal: error: stdout: cannot be written ({error.strerror}); free space, or write elsewhere")
    except (MemoryError, RuntimeError) as error:  # torch has one kind of the latter for GPUs, and none for the CPU
        if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", str(error)):
            raise
        sys.exit("skipmodal: error: out of memory; make batches smaller (data.batch_size of train, else --batch-size)")
    except KeyboardInterrupt:
        sys.stderr.write("skipmodal: interrupted\n")
        sys.exit(130)
