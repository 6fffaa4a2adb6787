# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stub of the extension module says what the module has."""

from __future__ import annotations

import ast
import inspect
import pathlib

import ferry
import pytest
from ferry import _native

STUB = pathlib.Path(ferry.__file__).with_name("_native.pyi")
TREE = ast.parse(STUB.read_text())
CLASSES = {node.name: node for node in TREE.body if isinstance(node, ast.ClassDef)}
#: From 3.12 on it can be called from Python; the stub has it for type checkers of every version.
WITHOUT_RUNTIME = {"__buffer__"}
#: What every object has, or what stands for how the interpreter calls it.
IMPLIED = {"__doc__", "__repr__", "__module__", "__hash__"}

P = inspect.Parameter


def methods_of(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}


def is_property(function: ast.FunctionDef) -> bool:
    return any(
        (isinstance(decorator, ast.Name) and decorator.id == "property") or isinstance(decorator, ast.Attribute)
        for decorator in function.decorator_list
    )


def parameters_of(function: ast.FunctionDef) -> list[tuple[str, object, object]]:
    """List (name, kind, default) as the stub has them; self is without a kind, which the runtime's tells."""
    arguments = function.args
    named = [(a, P.POSITIONAL_ONLY) for a in arguments.posonlyargs]
    named += [(a, P.POSITIONAL_OR_KEYWORD) for a in arguments.args]
    without = [P.empty] * (len(named) - len(arguments.defaults))
    defaults = without + [ast.literal_eval(default) for default in arguments.defaults]
    for argument, kind in ((arguments.vararg, P.VAR_POSITIONAL), (arguments.kwarg, P.VAR_KEYWORD)):
        if argument is not None:
            place = len(named) if kind is P.VAR_KEYWORD else len(arguments.posonlyargs) + len(arguments.args)
            named.insert(place, (argument, kind))
            defaults.insert(place, P.empty)
    place = len(named) - (arguments.kwarg is not None)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        named.insert(place, (argument, P.KEYWORD_ONLY))
        defaults.insert(place, P.empty if default is None else ast.literal_eval(default))
        place += 1
    return [
        (argument.arg, kind if i > 0 else None, default)
        for i, ((argument, kind), default) in enumerate(zip(named, defaults, strict=True))
    ]


def test_names_of_the_module():
    stub = {node.name for node in TREE.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert stub == {name for name in vars(_native) if not name.startswith("__")}


@pytest.mark.parametrize("name", CLASSES)
def test_names_of_a_class(name):
    stub = set(methods_of(CLASSES[name])) - WITHOUT_RUNTIME
    assert stub == set(vars(getattr(_native, name))) - IMPLIED


@pytest.mark.parametrize("name", CLASSES)
def test_properties(name):
    cls = getattr(_native, name)
    for method, function in methods_of(CLASSES[name]).items():
        if method not in WITHOUT_RUNTIME:
            assert is_property(function) == inspect.isgetsetdescriptor(vars(cls)[method]), f"{name}.{method}"


@pytest.mark.parametrize("name", CLASSES)
def test_signatures(name):
    """Every public method has one, in both, with the same parameters, kinds and defaults."""
    cls = getattr(_native, name)
    compared = 0
    for method, function in methods_of(CLASSES[name]).items():
        if method.startswith("_") or is_property(function):
            continue
        signature = inspect.signature(getattr(cls, method))
        runtime = [
            (p.name, p.kind if i > 0 else None, p.default) for i, p in enumerate(signature.parameters.values())
        ]
        assert parameters_of(function) == runtime, f"{name}.{method}{signature}"
        compared += 1
    assert compared > 0 or name in ("SharedBlock", "StoreField")  # which have no methods


@pytest.mark.parametrize("name", CLASSES)
def test_properties_that_may_be_set(name):
    node = CLASSES[name]
    setters = {
        item.name
        for item in node.body
        if isinstance(item, ast.FunctionDef) and any(isinstance(d, ast.Attribute) for d in item.decorator_list)
    }
    assert setters == {"Buffer": {"timestamp"}, "Channel": {"timeout"}}.get(name, set())


@pytest.mark.parametrize("cls", [ferry.Queue, ferry.JoinableQueue, ferry.SimpleQueue])
def test_queues_spell_their_arguments_out(cls):
    parameters = inspect.signature(cls).parameters
    assert not any(p.kind in (P.VAR_KEYWORD, P.VAR_POSITIONAL) for p in parameters.values())
    ours = {"ctx", "name", "transport", "codec", "max_bytes", "pickle", "store"}
    assert set(parameters) == ours | (set() if cls is ferry.SimpleQueue else {"maxsize"})
    assert all(parameters[name].kind is P.KEYWORD_ONLY for name in ours)


def test_arguments_of_the_queue_are_those_of_the_stub():
    """The names by which the C function takes them are compared by calling it."""
    function = methods_of(CLASSES["Queue"])["__init__"]
    names = {name: default for name, _, default in parameters_of(function) if name not in ("self", "transport")}
    queue = _native.Queue("memfd", **{**names, "capacity": 4})
    assert queue.transport == "memfd" and queue.codec == "auto" and queue.name is None
    with pytest.raises(TypeError):
        _native.Queue("memfd", no_such_argument=1)
