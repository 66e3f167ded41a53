"""Configuration files: sections that refuse what they do not know, and errors of one sentence."""

import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

_UNKNOWN = "extra_forbidden"


class ConfigurationError(ValueError):
    """One sentence for the user: which key, which value, which law, what to do."""


class Section(BaseModel):
    """A table of a configuration file: immutable, without unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises ConfigurationError for a file that is missing, unreadable or no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; give the path of a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from None


def sentence(error: ValidationError, *roots: type[BaseModel], at: str = "") -> str:
    """The first thing that is wrong with a section (one of `roots`), by its key.

    `at` is the key under which the section stands, if it is not a whole file.

    >>> class Table(Section):
    ...     steps: int
    >>> try:
    ...     Table.model_validate({"stepps": 1, "steps": 1})
    ... except ValidationError as error:
    ...     sentence(error, Table)
    "unknown key 'stepps'; did you mean 'steps'?"
    """
    # Where a value may have several forms, the form it came closest to has the longest path;
    # a key that is unknown tells more than the one that is missing for it.
    first = max(error.errors(), key=lambda one: (len(one["loc"]), one["type"] == _UNKNOWN))
    kind, given, said = first["type"], first["input"], first["msg"]
    path, sections = _walk(first["loc"][:-1] if kind == _UNKNOWN else first["loc"], list(roots))
    key = ".".join([at, *path] if at else path)
    if kind == _UNKNOWN:
        name = str(first["loc"][-1])
        known = list(dict.fromkeys(field for each in sections for field in each.model_fields))
        return f"unknown key {f'{key}.{name}'.lstrip('.')!r}; {suggestion(name, known)}"
    if kind == "value_error":
        return f"{key}: {said.removeprefix('Value error, ')}".removeprefix(": ")
    if kind == "missing":
        return f"{key} is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        known = [str(name) for each in sections for name in _names(each)]
        given = given.get("name", given) if isinstance(given, dict) else given
        named = isinstance(given, str)
        said = suggestion(given, known) if named else f"name is one of {', '.join(known)}"
    if kind in ("model_type", "model_attributes_type"):
        said = "Input should be a table"
    return f"{key} = {shortened(given)}: {said}"


def suggestion(name: str, known: list[str]) -> str:
    """Which of the known names was meant, or all of them.

    >>> suggestion("world.pp", ["world.p", "model.n"])
    "did you mean 'world.p'?"
    """
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def _walk(
    path: tuple[int | str, ...], sections: list[type[BaseModel]]
) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys of a path, and the sections it may end in."""
    keys = []
    for part in path:
        fields = [each.model_fields[part] for each in sections if part in each.model_fields]
        if fields:
            keys.append(str(part))
            sections = [each for field in fields for each in sections_in(field.annotation)]
        elif isinstance(part, int):
            keys.append(str(part))
        else:
            # Pydantic also puts the names of alternatives and of types into a path.
            sections = [each for each in sections if part in _names(each)] or sections
    return keys, sections


def _names(section: type[BaseModel]) -> tuple[Any, ...]:
    field = section.model_fields.get("name")
    return get_args(field.annotation) if field else (section.__name__,)


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections among the types that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_in(inner)


def shortened(value: Any) -> str:
    """A value as Python writes it, cut where that is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
