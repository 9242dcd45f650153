"""A core's Verilog cut into units, so that each is mapped by itself, equal ones once, and only what changed again."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

#: Units whose parts are units too.
EXPANDED = ("attention",)
#: Modules that are there at least so often are units.
REPEATED = 4
_MODULE = re.compile(r"^module (\S+?) ?\((.*?)\);\n(.*?)^endmodule\n", re.MULTILINE | re.DOTALL)
_INSTANCE = re.compile(r"^  (\\\S+|\w+) +(?:\\\S+|\w+) +\($", re.MULTILINE)
_DECLARATION = re.compile(r"^  (?:input|output) [^;]*;\n", re.MULTILINE)
#: Numbers that count over the whole core: without them a module looks the same wherever it stands.
_COUNTED = re.compile(r"dump_module\$\d+")


@dataclass(frozen=True)
class Unit:
    """A part of a core to map: a module with all modules inside that are no units themselves."""

    #: Name for people: without the core's name, without the number that Yosys adds to make names unique.
    name: str
    #: Module to map.
    module: str
    #: Verilog of the unit.
    text: str
    #: Verilog of the units inside, ports alone.
    stubs: str

    def key(self, *more: str) -> str:
        """Hash of all that the result of mapping depends on."""
        return hashlib.sha256("\0".join((_COUNTED.sub("", self.text + self.stubs), *more)).encode()).hexdigest()


def plain(module: str) -> str:
    """A module's name without the backslash of Verilog and the numbers that make it unique."""
    return re.sub(r"\$\d+(?=\.|$)", "", module.removeprefix("\\"))


class _Modules:
    """Modules of a Verilog text, with equal ones merged into the first of them."""

    def __init__(self, verilog: str):
        self.found = {match[1]: match for match in _MODULE.finditer(verilog)}
        self.text, self.children, self.count = {}, {}, Counter()
        self._merged, self._first = {}, {}
        for name in self.found:
            self._merge(name)

    def _merge(self, name: str) -> str:
        """The module that stands for `name`; instances inside are renamed to those that stand for them."""
        if name in self._merged:
            return self._merged[name]
        names = {child: self._merge(child) for child in _INSTANCE.findall(self.found[name][3]) if child in self.found}
        whole = _INSTANCE.sub(lambda match: match[0].replace(match[1], names.get(match[1], match[1]), 1), self.found[name][0])
        key = _COUNTED.sub("", whole.replace(f"module {name}", "module", 1))
        first = self._merged[name] = self._first.setdefault(key, name)
        if first == name:
            self.text[name] = whole
            self.children[name] = [names[child] for child in _INSTANCE.findall(self.found[name][3]) if child in names]
        self.count[first] += 1
        return first

    def is_unit(self, name: str) -> bool:
        """The top, the parts of the core, the parts of `EXPANDED` ones, and what there are many of."""
        path = plain(name).split(".")
        return len(path) in (1, 3) or len(path) == 4 and path[2] in EXPANDED or self.count[name] >= REPEATED

    def stub(self, name: str) -> str:
        """A module's ports."""
        _, ports, body = self.found[name].groups()
        return f"(* blackbox *)\nmodule {name} ({ports});\n{''.join(_DECLARATION.findall(body))}endmodule\n"


def cut(verilog: str) -> list[Unit]:
    """Units of a core's Verilog, inner ones first; the last is the top with what is in no other unit."""
    modules, units, visited = _Modules(verilog), [], set()

    def gather(name, inside, inner):
        inside[name] = None
        for child in modules.children[name]:
            if modules.is_unit(child):
                inner[child] = None
                visit(child)
            elif child not in inside:
                gather(child, inside, inner)

    def visit(name):
        if name in visited:
            return
        visited.add(name)
        inside, inner = {}, {}
        gather(name, inside, inner)
        shown = ".".join(plain(name).split(".")[2:]) or "top"
        units.append(Unit(shown, name, "".join(modules.text[part] for part in inside), "".join(map(modules.stub, inner))))

    visit(next(name for name in modules.found if len(plain(name).split(".")) == 1))
    return units
