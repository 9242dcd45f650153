"""Commands of projects, runs and files."""

import fnmatch
from pathlib import Path

from .state import State
from .words import need, options, split_list

_STATISTICS = {"STATS.WNS": "setup", "STATS.WHS": "hold", "STATS.TPWS": "pulse"}


class ProjectCommands(State):
    """Methods are commands; their arguments are its words."""

    def do_version(self, *words):
        """Version; the long form is a page of text."""
        need(words == ("-short",), "only -short gives a number")
        return self.scenario.version

    def do_create_project(self, *words):
        found, (name, _) = options(words, flags=("-force",), values=("-part",))
        need(not self.project, f"project {self.project} is still open")
        need("-part" in found, "no part")
        self.project, self.part, self.files, self.top, self.repositories = name, found["-part"], [], "", []

    def do_close_project(self):
        need(self.project, "no project is open")
        self.project = ""

    def do_current_project(self):
        need(self.project, "no project is open")
        return "project"

    def do_current_fileset(self):
        return "fileset"

    def do_add_files(self, *words):
        _, files = options(words, flags=("-norecurse",))
        for name in files:
            need(Path(name).is_file(), f"file {name} does not exist")
        self.files += files

    def do_update_compile_order(self, *words):
        found, _ = options(words, values=("-fileset",))
        need(found.get("-fileset") == "sources_1", "there is no such fileset")

    def do_update_ip_catalog(self):
        for folder in self.repositories:
            ip = self.packaged
            need(ip and ip.folder == folder and "save_core" in ip.steps, f"{folder} holds no component.xml")
            self.catalogue[":".join(ip.vlnv)] = ip

    def do_get_board_parts(self, *words):
        _, (pattern,) = options(words, flags=("-quiet", "-latest_file_version"))
        return " ".join(name for name in self.scenario.boards if fnmatch.fnmatch(name, pattern))

    def do_get_files(self, name):
        need(name == f"{self.design}.bd", f"no file {name}")
        return name

    def do_get_runs(self, name):
        need(name in ("synth_1", "impl_1"), f"no run {name}")
        return f"run:{name}"

    def do_make_wrapper(self, *words):
        found, files = options(words, flags=("-top", "-import"), values=("-files",))
        need("saved" in self.done, "the block design was not saved")
        need({"-top", "-import", "-files"} <= found.keys() and not files, "-files, -top and -import make the wrapper part of the project")
        self.done.add("wrapper")

    def do_launch_runs(self, *words):
        found, (run,) = options(words, values=("-to_step", "-jobs"))
        self.do_get_runs(run)
        step = found.get("-to_step")
        need(step in ("route_design", "write_bitstream"), f"no step {step}")
        need("wrapper" in self.done and self.top == f"{self.design}_wrapper", "the top is not the design's wrapper")
        need(step != "write_bitstream" or _STATISTICS.keys() <= self.done, "no bitstream before setup, hold and pulse slack were read")
        self.launched = step

    def do_wait_on_run(self, run):
        self.do_get_runs(run)
        need(self.launched, "the run was not launched")
        if self.launched != self.scenario.broken_step:
            self.done.add(self.launched)

    def do_open_run(self, run):
        self.do_get_runs(run)
        need("route_design" in self.done, f"run {run} is not complete")
        self.done.add("opened")

    def do_close_design(self):
        need("opened" in self.done, "no design is open")
        self.done.discard("opened")

    def _report(self, *words):
        found, _ = options(words, flags=("-hierarchical",), values=("-file",))
        need("opened" in self.done, "no design is open")
        need("-file" in found, "no file")

    do_report_timing_summary = do_report_utilization = do_report_power = _report

    def do_file(self, verb, *words):
        found, (source, destination) = options(words, flags=("-force",))
        need(verb == "copy" and found, f"file {verb} is not expected here")
        need("write_bitstream" in self.done, "there is no bitstream yet")
        produced = {"bit": f"{self.project}.runs/impl_1/{self.design}_wrapper.bit",
                    "hwh": f"{self.project}.gen/sources_1/bd/{self.design}/hw_handoff/{self.design}.hwh"}
        kinds = [kind for kind, path in produced.items() if source.endswith("/" + path)]
        need(kinds, f"{source} does not exist")
        self.copied[kinds[0]] = destination

    def do_get_property(self, name, thing):
        need(thing == "run:impl_1", f"no property {name} on {thing}")
        if name == "PROGRESS":
            return "100%" if self.launched in self.done else "60%"
        need(name in _STATISTICS, f"no property {name} on {thing}")
        need("route_design" in self.done, "the run is not routed")
        self.done.add(name)
        return str(getattr(self.scenario, _STATISTICS[name]))

    def do_set_property(self, *words):
        found, rest = options(words, values=("-dict",))
        if "-dict" in found:
            pairs = split_list(found["-dict"])
            need(len(pairs) % 2 == 0 and len(rest) == 1, "-dict needs pairs and one object")
            for name, value in zip(pairs[::2], pairs[1::2]):
                self.set_one(name, value, rest[0])
        else:
            need(len(rest) == 3, "needs a name, a value and an object")
            self.set_one(*rest)

    def set_one(self, name: str, value: str, thing: str) -> None:
        """Set one property of a fileset, a project or a run."""
        if thing == "fileset" and name == "top":
            need(value == (f"{self.design}_wrapper" if "wrapper" in self.done else self.core.module), f"there is no module {value}")
            self.top = value
        elif thing == "project" and name == "ip_repo_paths":
            self.repositories = split_list(value)
        elif thing == "project" and name == "board_part":
            need(value in self.scenario.boards, f"no board part {value}")
            self.done.add("board_part")
        elif thing == "run:impl_1" and name == "STEPS.PHYS_OPT_DESIGN.IS_ENABLED":
            need(value in ("true", "false"), f"{name} is true or false")
        else:
            need(False, f"no property {name} on {thing}")
