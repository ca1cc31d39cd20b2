"""Node with the packages of a lock file, for tests that drive the JavaScript of others.

They are installed once, from the lock file, into a folder that git ignores.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

NODE_MAJOR_MIN = 20
INSTALL_LIMIT_S = 300


def node_with(folder: Path, untried: str) -> str:
    """Path of a Node that has the packages of `folder`; skips, saying what is `untried`, where there is none."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if not found or not npm:
        pytest.skip(f"SKIPPED, NOT PASSED: node and npm are not installed, so {untried}")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < NODE_MAJOR_MIN:
        pytest.skip(f"SKIPPED, NOT PASSED: node {version} is older than v{NODE_MAJOR_MIN}, which kit needs")
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".installed-lock.json"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        ran = subprocess.run([npm, "ci"], cwd=folder, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
        if ran.returncode:
            pytest.skip(f"SKIPPED, NOT PASSED: npm ci failed: {ran.stderr.strip()[-300:]}")
        shutil.copyfile(lock, installed)
    return found


def assert_no_registry(folder: Path) -> None:
    """Whoever installs takes the packages from the registry that their own npm is set to; hashes pin the bytes."""
    lock = json.loads((folder / "package-lock.json").read_text())
    for name, package in lock["packages"].items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")
