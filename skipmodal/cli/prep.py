"""`skipmodal prep`: sources -> prepared datasets."""

import typer

app = typer.Typer(no_args_is_help=True, help="Turn a source into a prepared dataset.")
