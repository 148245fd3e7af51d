"""Checks that a git tag is the package's version with a v before it, so that a release contains the version that its tag names.

python tools/check_tag.py v0.1.0
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def main(argv: Sequence[str]) -> int:
    """Compares the tag with the version; the exit code is 0 if they agree, else 2."""
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tag = argv[0] if argv else ""
    if tag != f"v{version}":
        print(
            f"check_tag: the tag is {tag!r}, but pyproject.toml has version {version}; tag v{version}, or change the version there",
            file=sys.stderr,
        )
        return 2
    print(f"{tag} is the package's version")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
