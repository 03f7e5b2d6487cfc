"""The pages that are written, as Jinja2 templates; what fills them is escaped."""

from pathlib import Path
from typing import Any


def render(name: str, **values: Any) -> bytes:
    """A template filled, as UTF-8."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    return environment.get_template(name).render(**values).encode(errors="replace")
