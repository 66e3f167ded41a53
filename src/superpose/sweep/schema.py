"""The JSON Schema of the axes of a sweep: what may stand at every key that can be swept."""

from typing import Any

from pydantic import ValidationError

from superpose.sweep.axes import FIELDS


def axes_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of `[axes]`, and those it refers to, by name."""
    named = {f"axis {key}": _values(key) for key in FIELDS}
    keys = {key: {"$ref": f"#/$defs/axis {key}".replace(" ", "%20")} for key in FIELDS}
    zipped = {
        "type": "array",
        "items": {"$ref": "#/$defs/axis"},
        "description": "Keys that move together, [[axes.zipped]]: their lengths are equal.",
    }
    named["axis"] = {"type": "object", "properties": keys, "additionalProperties": False}
    whole = {
        "description": "What varies, and through which values.",
        "anyOf": [
            {**named["axis"], "properties": {**keys, "zipped": zipped}},
            {**zipped, "description": "One table an axis; the keys of one are zipped."},
        ],
    }
    return whole, named


def _values(key: str) -> dict[str, Any]:
    """What an axis of one key is: a list, or a range where it holds numbers."""
    listed = {
        "type": "array",
        "minItems": 1,
        "items": _inlined(FIELDS[key].json_schema()),
        "description": "The values, each once.",
    }
    try:
        FIELDS[key].validate_python(1)
    except ValidationError:
        return listed
    return {"anyOf": [listed, _range("log"), _range("grid")]}


def _range(form: str) -> dict[str, Any]:
    ends = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    even = "evenly spaced" if form == "grid" else "evenly spaced in the logarithm"
    return {
        "type": "object",
        "properties": {form: ends, "count": {"type": "integer", "minimum": 1}},
        "required": [form, "count"],
        "additionalProperties": False,
        "description": f"`count` values from the first to the last, {even}.",
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without references, so that it can stand anywhere in another."""
    named = schema.pop("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inline(named[part["$ref"].rpartition("/")[2]])
        return {key: inline(each) for key, each in part.items() if key != "discriminator"}

    return inline(schema)
