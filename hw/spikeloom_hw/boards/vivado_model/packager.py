"""Commands of the IP packager."""

from .state import Packaged, State
from .words import need, options, split_list

_KINDS = ("clock", "reset", "interrupt")
_PARAMETERS = {"POLARITY": "reset", "SENSITIVITY": "interrupt", "PROTOCOL": "aximm", "FREQ_HZ": "clock"}
_PROPERTIES = {"name", "version", "display_name", "description", "supported_families", "core_revision"}


class PackagerCommands(State):
    """Methods are commands without their ``ipx::``; their arguments are its words."""

    def ipx_package_project(self, *words):
        found, rest = options(words, flags=("-import_files", "-force"), values=("-root_dir", "-vendor", "-library", "-taxonomy"))
        need(not rest and {"-root_dir", "-vendor", "-library"} <= found.keys(), "needs -root_dir, -vendor and -library")
        need("-import_files" in found, "without -import_files the IP points outside of its folder")
        need(self.files and self.top == self.core.module, "the project has no files, or another top")
        interfaces = dict.fromkeys(self.core.interfaces, "aximm")
        interfaces |= dict(zip(self.core.singles, _KINDS))
        visible = {name: kind for name, kind in interfaces.items() if name not in self.scenario.hidden}
        self.packaged = Packaged([found["-vendor"], found["-library"], self.top, "1.0"], found["-root_dir"], visible)
        if self.scenario.fixed_frequency:
            self.packaged.parameters[self.core.singles[0], "FREQ_HZ"] = "100000000"

    def ipx_current_core(self):
        need(self.packaged, "nothing was packaged")
        return "core"

    def _names(self, words, values=("-of_objects",)):
        found, (name, *rest) = options(words, flags=("-quiet",), values=values)
        need("-of_objects" in found and not rest, "needs -of_objects")
        return found["-of_objects"], name, "-quiet" in found

    def ipx_get_bus_interfaces(self, *words):
        of, name, quiet = self._names(words)
        need(of == "core", f"{of} has no interfaces")
        if name not in self.packaged.interfaces:
            need(quiet, f"there is no interface {name}")
            return ""
        return f"bus:{name}"

    def ipx_infer_bus_interface(self, pins, kind, core):
        names = split_list(pins)
        known = {port.name for port in self.core.ports}
        need(core == "core" and set(names) <= known, f"no ports {sorted(set(names) - known)}")
        if kind == "xilinx.com:interface:aximm_rtl:1.0":
            prefixes = {name.rpartition("_")[0] for name in names}
            need(len(prefixes) == 1 and set(names) == {port.name for port in self.core.signals(min(prefixes)).values()},
                 "these ports are not one interface")
            self.packaged.interfaces[min(prefixes)] = "aximm"
            return
        expected = dict(zip(self.core.singles, _KINDS)).get(pins)
        need(kind == f"xilinx.com:signal:{expected}_rtl:1.0", f"{pins} is no {kind}")
        self.packaged.interfaces[pins] = expected

    def ipx_get_bus_parameters(self, *words):
        of, name, quiet = self._names(words)
        bus = of.removeprefix("bus:")
        need(of.startswith("bus:"), f"{of} has no parameters")
        if (bus, name) not in self.packaged.parameters:
            need(quiet, f"{bus} has no parameter {name}")
            return ""
        return f"parameter:{bus}:{name}"

    def ipx_add_bus_parameter(self, name, of):
        bus = of.removeprefix("bus:")
        need(_PARAMETERS.get(name) == self.packaged.interfaces.get(bus), f"{bus or 'nothing'} knows no parameter {name}")
        self.packaged.parameters[bus, name] = ""

    def ipx_remove_bus_parameter(self, name, of):
        need(self.packaged.parameters.pop((of.removeprefix("bus:"), name), None) is not None, f"there is no parameter {name}")

    def ipx_associate_bus_interfaces(self, *words):
        found, rest = options(words, values=("-busif", "-clock", "-reset"))
        need(rest == ["core"] and "-clock" in found, "needs -clock and the core")
        for option, kind in (("-busif", "aximm"), ("-clock", "clock"), ("-reset", "reset")):
            need(option not in found or self.packaged.interfaces.get(found[option]) == kind, f"{found.get(option)} is no {kind}")
        if "-busif" in found:
            self.packaged.clocks[found["-busif"]] = found["-clock"]
        if "-reset" in found:
            self.packaged.resets[found["-clock"]] = found["-reset"]

    def set_core_property(self, name: str, value: str) -> None:
        """A property of the core itself."""
        need(name in _PROPERTIES, f"no property {name}")
        self.packaged.properties[name] = value
        if name in ("name", "version"):
            self.packaged.vlnv[2 if name == "name" else 3] = value

    def set_parameter(self, thing: str, value: str) -> None:
        """The value of a parameter of an interface."""
        _, bus, name = thing.split(":")
        self.packaged.parameters[bus, name] = value

    def _step(self, core):
        need(core == "core", f"{core} is no core")

    ipx_create_xgui_files = _step

    def ipx_update_checksums(self, core):
        self._step(core)
        self.packaged.steps.append("update_checksums")

    def ipx_check_integrity(self, core):
        """What Vivado finds, and what would fail only in hardware: a polarity, a protocol, a clock that nobody named."""
        self._step(core)
        ip, (clock, reset, interrupt) = self.packaged, self.core.singles
        wanted = {(reset, "POLARITY"): "ACTIVE_LOW", (interrupt, "SENSITIVITY"): "LEVEL_HIGH"}
        wanted |= {(name, "PROTOCOL"): "AXI3" if self.core.is_axi3(name) else "AXI4" for name in self.core.managers}
        for (bus, name), value in wanted.items():
            need(ip.parameters.get((bus, name)) == value, f"{name} of {bus} must be {value}")
        need((clock, "FREQ_HZ") not in ip.parameters, "the clock has a frequency of its own")
        need(set(ip.interfaces) == {*self.core.interfaces, clock, reset, interrupt}, "an interface is missing")
        for name in self.core.interfaces:
            need(ip.clocks.get(name) == clock, f"{name} has no clock")
        need(ip.resets == {clock: reset}, f"{clock} has no reset")
        need("supported_families" in ip.properties, "no families are supported")
        ip.steps.append("check_integrity")

    def ipx_save_core(self, core):
        self._step(core)
        need({"update_checksums", "check_integrity"} <= set(self.packaged.steps), "checksums and integrity come first")
        self.packaged.steps.append("save_core")
