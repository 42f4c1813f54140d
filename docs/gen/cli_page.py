"""The page of the command line, from the parsers that the command itself uses."""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

from docs.gen.markdown import table
from mmalign_runtime.cli import app
from mmalign_runtime.cli.verbs import load_verbs

# In the order in which they are used. A verb that is not named here comes last.
_ORDER = ("train", "evaluate", "export", "import", "quantize", "verify", "info", "embed", "search", "explain", "bench")

_INTRODUCTION = """# Command line

`mmalign` has one verb a task. `mmalign VERB --help` shows the same options in the terminal. A verb of a distribution
that is not installed names the command that installs it.

| exit code | meaning |
| --- | --- |
| 0 | success |
| 1 | `verify`: the bundle differs; `bench`: nothing can be recommended; `embed`: some items failed |
| 2 | an error, told in one line on stderr |
| 130, 143 | interrupted by Ctrl-C, by SIGTERM |
| 141 | the reader of the output closed it, as `head` does |"""


def verbs() -> dict[str, Any]:
    """Return the commands of all installed distributions by name, in the order of the page."""
    load_verbs(app)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    names = [name for name in _ORDER if name in commands]
    return {name: commands[name] for name in [*names, *sorted(commands.keys() - set(_ORDER))]}


def cli_page() -> str:
    """Return the whole page."""
    return "\n\n".join([_INTRODUCTION, *(_section(name, command) for name, command in verbs().items())]) + "\n"


def _section(name: str, command: Any) -> str:  # noqa: ANN401 - typer's own click has no public types
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join(["mmalign", name, *map(_argument_name, arguments), "[OPTIONS]"])
    rows = [[f"`{_argument_name(each)}`", _type(each), _default(each), each.help or ""] for each in arguments]
    rows += [[_option_name(each), _type(each), _default(each), each.help or ""] for each in options]
    words = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    return f"## {name}\n\n{words}\n\n```text\n{usage}\n```\n\n" + table(("", "type", "default", "meaning"), rows)


def _argument_name(argument: Any) -> str:  # noqa: ANN401
    name = argument.metavar or argument.name.upper()
    return f"{name}..." if argument.multiple or argument.nargs == -1 else name


def _option_name(option: Any) -> str:  # noqa: ANN401
    return ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def _type(parameter: Any) -> str:  # noqa: ANN401
    if getattr(parameter, "is_flag", False):
        return "flag"
    annotation = parameter.type_descriptor.annotation
    repeated = get_origin(annotation) is list
    inner = get_args(annotation)[0] if repeated else annotation
    if get_origin(inner) in (Union, UnionType):
        inner = next(each for each in get_args(inner) if each is not type(None))
    if get_origin(inner) is Literal:
        return "one of " + ", ".join(word for word in get_args(inner) if word)
    name = {"Path": "path", "str": "text", "int": "integer", "float": "number", "bool": "flag"}[inner.__name__]
    bounds = [f"at least {parameter.min:g}"] if parameter.min is not None else []
    bounds += [f"at most {parameter.max:g}"] if parameter.max is not None else []
    return ", ".join([name, *bounds, *(["repeatable"] if repeated else [])])


def _default(parameter: Any) -> str:  # noqa: ANN401
    if parameter.required:
        return "required"
    if parameter.default is None or parameter.default is False or parameter.default == []:
        return ""
    return f"`{parameter.default}`"
