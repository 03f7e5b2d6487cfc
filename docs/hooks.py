"""Pages that MkDocs makes from the code when it builds the site: commands from Typer, recipes from their files."""

import html
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def on_page_markdown(markdown: str, page, **_: object) -> str:
    """Fills the gap in a reference page."""
    for gap, make in {"<!-- commands -->": commands, "<!-- settings -->": settings}.items():
        if gap in markdown:
            markdown = markdown.replace(gap, make())
    return markdown


def commands() -> str:
    """The help of every command, by Typer's own generator."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "skipmodal.cli.app", "utils", "docs", "--name", "skipmodal"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    text = html.unescape(done.stdout).partition("\n## ")[2]
    return "## " + text.replace("<", "&lt;").replace("\n## ", "\n\n## ")


def settings() -> str:
    """Every setting of a recipe with its default and what it is, from the recipe's own types."""
    from skipmodal.recipe import comparators, dump_recipe, recipe_class

    lines = []
    for kind in ("vector", "tokens", *comparators()):
        recipe = recipe_class(kind)
        assert recipe is not None
        lines += [f"## `model.kind: {kind}`", ""]
        values = dump_recipe(recipe())
        for section, field in recipe.model_fields.items():
            if kind in comparators() and section not in ("model", "loss"):
                continue  # as above
            lines += [f"### {section} ({kind})", "", "| setting | default | what it is |", "|---|---|---|"]
            for name, each in field.annotation.model_fields.items():  # type: ignore[union-attr]
                about = (each.description or "").replace("|", "\\|")
                lines.append(f"| `{section}.{name}` | `{values[section][name]}` | {about} |")
            lines.append("")
    return "\n".join(lines)
