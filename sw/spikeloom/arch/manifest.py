"""The JSON beside a bitstream: which machine it is, so that a driver needs no other source."""

import json
import subprocess
from pathlib import Path

from .. import __version__
from . import commands
from .config import AcceleratorConfig
from .registers import COUNTERS, VERSION, register_map

#: Version of this file's fields.
MANIFEST_VERSION = 1


class ManifestError(ValueError):
    """A manifest is not one, is of another version, or contradicts itself; the message says which."""


def git_id(folder: Path | None = None) -> str:
    """Commit that this checkout is at, with `+` when it has changes; empty outside of a checkout."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=folder or Path(__file__).parent, capture_output=True, text=True, timeout=10)
    try:
        head = git("rev-parse", "--short=12", "HEAD")
        if head.returncode:
            return ""
        return head.stdout.strip() + ("+" if git("status", "--porcelain", "--untracked-files=no").stdout.strip() else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def manifest(cfg: AcceleratorConfig, *, git: str | None = None) -> dict:
    """Config, fingerprint, registers, command fields and origin of one machine."""
    registers = register_map(cfg)
    return {
        "spikeloom": __version__, "manifest_version": MANIFEST_VERSION, "git": git_id() if git is None else git,
        "fingerprint": f"{cfg.fingerprint:#010x}", "config": cfg.to_dict(), "register_map_version": VERSION,
        "registers": {name: {"address": registers.address(name),
                             "fields": {f.name: [*r.position_of(f.name), f.access.value] for f in r.fields}}
                      for name, r in registers.items()},
        "counters": list(COUNTERS), "command_fields": commands.describe(),
    }


def write_manifest(cfg: AcceleratorConfig, path: Path) -> None:
    """Write the manifest of a machine."""
    path.write_text(json.dumps(manifest(cfg), indent=1) + "\n", encoding="utf-8")


def read_manifest(path: Path) -> AcceleratorConfig:
    """The machine that a manifest describes.

    Raises
    ------
    ManifestError
        When the file is damaged, of another version, or its fingerprint is not that of its config.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version, config, fingerprint = record["manifest_version"], record["config"], int(record["fingerprint"], 16)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path.name} is not a manifest ({error}); it comes beside the bitstream.") from error
    if version != MANIFEST_VERSION:
        raise ManifestError(f"{path.name} has manifest version {version}, this software reads {MANIFEST_VERSION}; use matching ones.")
    try:
        cfg = AcceleratorConfig(**config)
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{path.name} describes no machine that this software knows: {error}") from error
    if cfg.fingerprint != fingerprint:
        raise ManifestError(f"{path.name} says fingerprint {fingerprint:#010x}, its config gives {cfg.fingerprint:#010x}: "
                            "it was written by another version of Spikeloom; use the one that built the bitstream.")
    return cfg
