"""The command line: `spikeloom generate "Once upon a time"`."""

import sys

try:
    import typer
except ModuleNotFoundError:
    sys.exit('The command line needs typer and rich; get them with: pip install "spikeloom[cli]"')

from .commands import bench, generate, images, learning, machine, read, systems

app = typer.Typer(help="Spiking transformer language models that write text on an FPGA, without a multiplier.",
                  no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(generate.generate)
app.command()(read.fill)
app.command()(read.classify)
app.command()(images.compile)
app.command()(images.info)
app.command()(systems.systems)
app.command()(bench.bench)
app.command()(machine.selftest)
app.command()(machine.doctor)
app.command()(machine.verilog)
app.command()(machine.registers)
app.command(context_settings=learning.PASS_ON)(learning.train)
app.command(context_settings=learning.PASS_ON)(learning.distil)
app.command("eval", context_settings=learning.PASS_ON)(learning.evaluate)
app.command(context_settings=learning.PASS_ON)(learning.ablate)

if __name__ == "__main__":
    app()
