"""The documents are true where a machine can tell: links, files, names, command lines, and all that is generated."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from cyxnode.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "scripts"
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
DOCUMENTS = [path for path in [*DOCUMENTS, *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]
FOLDERS = "protocol|scheduler|p2p|executor|ledger|bootstrap|cli|simulation|scripts|benchmarks|examples|tests|docs"


def _names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.fixture(scope="module")
def writer() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("write_docs")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=_names(DOCUMENTS))
def test_generated_parts_are_in_step_with_the_code(writer: ModuleType, path: Path) -> None:
    text = path.read_text()
    assert writer.rewritten(text) == text, "run: python scripts/write_docs.py"


def test_every_generated_part_stands_in_a_document(writer: ModuleType) -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert set(re.findall(r"<!-- generated: ([a-z ]+) -->", text)) == set(writer.WRITERS)


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=_names(DOCUMENTS))
def test_relative_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{target} does not exist"
        if anchor and found.suffix == ".md":
            headings = {_slug(heading) for heading in re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)}
            assert anchor in headings, f"{target}: no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_names(DOCUMENTS))
def test_files_and_their_names_exist(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{name} does not exist"
    for name, inner in re.findall(rf"`((?:{FOLDERS})/[\w./-]+\.py)` `([\w.]+)`", text):
        source = (ROOT / name).read_text()
        for part in inner.split("."):
            defined = re.search(rf"^\s*(?:async def|def|class) {part}\b|^\s*{part}\b[^\n(]*=", source, re.MULTILINE)
            assert defined, f"{name} does not define {part}"


def _command_lines() -> list[str]:
    lines = []
    for path in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
            lines += [line.strip() for line in block.splitlines() if line.strip().startswith("cyxnode ")]
    return lines


@pytest.mark.parametrize("line", _command_lines())
def test_command_lines_parse(line: str) -> None:
    """As far as click goes: the commands exist and take these options and arguments."""
    words = shlex.split(line, comments=True)[1:]
    cli.make_context("cyxnode", [*words])
    while words[0].startswith("--log-"):
        words = words[2:]
    found: click.Command = cli
    while isinstance(found, click.Group):
        inner = found.get_command(click.Context(found), words[0])
        assert inner is not None, f"no command {words[0]!r}"
        found, words = inner, words[1:]
    found.make_context(line, words)


def test_the_readme_names_the_packages_that_the_check_names() -> None:
    check, readme = (SCRIPTS / "check_system.sh").read_text(), (ROOT / "README.md").read_text()
    for package in ("libgmp-dev", "gmp-devel", "libc6-dev", "bubblewrap", "gcc"):
        assert package in check
        assert package in readme


def test_the_readme_names_every_exit_code(writer: ModuleType) -> None:
    cli_reference = importlib.import_module("cli_reference")
    reference = (ROOT / "docs" / "cli.md").read_text()
    used = {int(code) for code in re.findall(r"exit_code = (\d+)", (ROOT / "protocol" / "errors.py").read_text())}
    assert used <= {code for code, _ in cli_reference.EXIT_CODES}
    assert all(f"| {code} | " in reference for code in used)


def test_every_command_has_a_row_in_the_readme_or_the_reference() -> None:
    cli_reference = sys.modules.get("cli_reference") or importlib.import_module("cli_reference")
    reference = (ROOT / "docs" / "cli.md").read_text()
    for path, _ in cli_reference.commands():
        assert f"`{path} " in reference
