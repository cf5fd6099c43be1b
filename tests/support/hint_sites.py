"""Every hint that the code can print, read from its source.

A hint is the second argument of an error of ours, and has its place in a `Problem` of a plan, a
`Check` of the doctor and a finding of a watch. Where it is a name, a parameter or a call, it is
followed to the strings that it can be, as far as a reader would follow it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "reembed"

PLACES = {"Problem": 1, "alert": 3, "warning": 3, "Check": 3}
"""Which argument of a call is its hint, besides that of the errors, where it is the second."""
FILES = {"alert": "commands/watch/", "warning": "commands/watch/", "Check": "commands/doctor.py"}
"""Where calls of that name are meant."""
HOLE = "{}"
WORDS = re.compile(r"[a-z]{2}")
DEPTH = 6

PAIRS = (
    "embedders/evidence.py", "manifest/messages.py", "stages/old_model.py", "stages/texts.py",
)  # fmt: skip
"""Files that tell of something by a message and its hint, for others to make an error of them."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Hint:
    """A hint in the code.

    Attributes:
        text: what is printed, with `{}` for what is filled in.
        where: the file in the package.
    """

    text: str
    where: str


@dataclass
class Module:
    """A file, and what its names stand for."""

    name: str
    tree: ast.Module
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node

    def function_of(self, node: ast.AST) -> Function | None:
        while (node := self.parents.get(node, self.tree)) is not self.tree:
            if isinstance(node, Function):
                return node
        return None

    @cached_property
    def imported(self) -> dict[str, str]:
        """Name to the module of the package that it comes from."""
        return {
            alias.asname or alias.name: node.module or ""
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }


class Code:
    """The package's modules and calls, by name."""

    def __init__(self, package: Path = PACKAGE) -> None:
        self.modules = {
            str(path.relative_to(package)): Module(
                str(path.relative_to(package)), ast.parse(path.read_bytes())
            )
            for path in sorted(package.rglob("*.py"))
        }
        self.calls: dict[str, list[tuple[Module, ast.Call]]] = defaultdict(list)
        self.functions: dict[str, list[tuple[Module, Function]]] = defaultdict(list)
        errors = {"ReembedError"}
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call):
                    self.calls[_called(node)].append((module, node))
                elif isinstance(node, Function):
                    self.functions[node.name].append((module, node))
                elif isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                    errors.add(node.name)
        self.places = dict.fromkeys(errors, 1) | PLACES

    def hints(self) -> set[Hint]:
        """All of them."""
        given = [
            (module, node.elts[1])
            for module in map(self.modules.__getitem__, PAIRS)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Tuple) and len(node.elts) == 2 and _is_told(node.elts[0])
        ]
        return {
            Hint(text, module.name)
            for module, one in given + list(self._given_in_calls())
            for text in self._texts(one, module, DEPTH)
            if WORDS.search(text.replace(HOLE, "")) and " " in text.strip()
        }

    def _given_in_calls(self) -> Iterator[tuple[Module, ast.expr]]:
        yield from (
            (module, given)
            for name, place in self.places.items()
            for module, call in self.calls[name]
            if module.name.startswith(FILES.get(name, ""))
            for given in _arguments(call, place, "hint")
        )
        yield from (  # an error that brings its own
            (module, one)
            for module, call in self.calls["__init__"]
            if module.name == "errors.py"
            for given in _arguments(call, 1, "hint")
            for one in (given.values if isinstance(given, ast.BoolOp) else [given])
            if not isinstance(one, ast.Name)
        )

    def _texts(self, node: ast.expr, module: Module, depth: int) -> Iterator[str]:
        """What an expression can be."""
        if depth == 0:
            return
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=values):
                yield "".join(_part(value) for value in values)
                for value in values:
                    if isinstance(value, ast.FormattedValue) and _may_be_told(value.value):
                        yield from self._sentences(value.value, module, depth - 1)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                heads = list(self._texts(left, module, depth)) or [HOLE]
                tails = list(self._texts(right, module, depth)) or [HOLE]
                yield from (head + tail for head in heads for tail in tails)
            case ast.IfExp(body=body, orelse=orelse):
                for one in (body, orelse):
                    yield from self._texts(one, module, depth)
            case ast.BoolOp(values=values) | ast.List(elts=values) | ast.Tuple(elts=values):
                for one in values:
                    yield from self._texts(one, module, depth)
            case ast.Starred(value=value) | ast.NamedExpr(value=value):
                yield from self._texts(value, module, depth)
            case ast.ListComp(elt=one) | ast.GeneratorExp(elt=one):
                yield from self._texts(one, module, depth)
            case ast.Dict(values=values):
                for one in values:
                    yield from self._texts(one, module, depth)
            case ast.Subscript(value=value):
                yield from self._texts(value, module, depth)
            case ast.Name(id=name):
                yield from self._named(node, name, module, depth - 1)
            case ast.Call():
                yield from self._returned(node, module, depth - 1)

    def _sentences(self, node: ast.expr, module: Module, depth: int) -> Iterator[str]:
        """Parts of a hint that are sentences of their own."""
        for text in self._texts(node, module, depth):
            if text.count(" ") > 3:
                yield text

    def _named(self, node: ast.AST, name: str, module: Module, depth: int) -> Iterator[str]:
        function = module.function_of(node)
        if function is not None:
            found = list(_assigned(function, name))
            if found:
                for value in found:
                    yield from self._texts(value, module, depth)
                return
            yield from self._given(function, name, module, depth)
            if name in _parameters(function):
                return
        for value in _assigned(module.tree, name):
            yield from self._texts(value, module, depth)
        there = self._origin(name, module)
        if there is not None:
            for value in _assigned(there.tree, name):
                yield from self._texts(value, there, depth)

    def _origin(self, name: str, module: Module) -> Module | None:
        """The module of ours that a name is imported from."""
        origin = module.imported.get(name, "")
        if not origin.startswith("reembed"):
            return None
        stem = origin.removeprefix("reembed").lstrip(".").replace(".", "/")
        return self.modules.get(f"{stem}.py") or self.modules.get(f"{stem}/__init__.py")

    def _given(self, function: Function, name: str, home: Module, depth: int) -> Iterator[str]:
        """What callers give as a parameter, and its default."""
        parameters = _parameters(function)
        if name not in parameters:
            return
        named = {one.arg: default for one, default in _defaults(function)}
        if name in named:
            yield from self._texts(named[name], _NOWHERE, depth)
        place = parameters.index(name)
        method = isinstance(home.parents[function], ast.ClassDef)
        for module, call in self.calls[function.name]:
            if method != isinstance(call.func, ast.Attribute):
                continue
            if not (method or home in (module, self._origin(function.name, module))):
                continue
            for given in _arguments(call, place, name):
                yield from self._texts(given, module, depth)

    def _returned(self, call: ast.Call, module: Module, depth: int) -> Iterator[str]:
        name = _called(call)
        if isinstance(call.func, ast.Attribute) and name in ("join", "format", "get", "strip"):
            for one in (call.func.value, *call.args):
                if not (name == "join" and one is call.func.value):
                    yield from self._texts(one, module, depth)
            return
        if name in ("next", "str"):
            for one in call.args:
                yield from self._texts(one, module, depth)
            return
        for there, function in self.functions[name]:
            if there is module or there is self._origin(name, module):
                for node in ast.walk(function):
                    if isinstance(node, ast.Return) and node.value is not None:
                        yield from self._texts(node.value, there, depth)


_NOWHERE = Module("", ast.Module([], []))


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _arguments(call: ast.Call, place: int, name: str) -> list[ast.expr]:
    if 0 <= place < len(call.args) and not any(
        isinstance(one, ast.Starred) for one in call.args[: place + 1]
    ):
        return [call.args[place]]
    return [one.value for one in call.keywords if one.arg == name]


def _assigned(place: ast.Module | Function, name: str) -> Iterator[ast.expr]:
    """What a name is set to, or is added to it, in a function or at the top of a file."""
    nodes = place.body if isinstance(place, ast.Module) else ast.walk(place)
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                yield value
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                for one, value in zip(names, values, strict=False):
                    if isinstance(one, ast.Name) and one.id == name:
                        yield value
            case (
                ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value)
                | ast.AugAssign(target=ast.Name(id=found), value=value)
                | ast.NamedExpr(target=ast.Name(id=found), value=value)
            ) if found == name:
                yield value
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=found), attr="append" | "extend" | "insert"),
                args=given,
            ) if found == name:
                yield from given


def _parameters(function: Function) -> list[str]:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [one for one in names if one not in ("self", "cls")]


def _defaults(function: Function) -> Iterator[tuple[ast.arg, ast.expr]]:
    given = function.args
    plain = [*given.posonlyargs, *given.args]
    yield from zip(plain[len(plain) - len(given.defaults) :], given.defaults, strict=True)
    for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        if default is not None:
            yield one, default


def _is_told(node: ast.expr) -> bool:
    """Whether it is a sentence."""
    if isinstance(node, ast.Call):
        return _called(node) == "join"
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return any(isinstance(one, ast.Constant) and " " in str(one.value) for one in parts)


def _part(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else HOLE


def _may_be_told(node: ast.expr) -> bool:
    """Whether what is filled in may be words of the code."""
    return isinstance(node, ast.Name | ast.Call | ast.IfExp)
