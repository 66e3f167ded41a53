"""Documents: JSON files that hold their own digest, and have one spelling."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from superpose.records.files import RecordError, plain, pretty_json


def format_document(content: Mapping[str, Any]) -> bytes:
    """JSON data with its digest; equal content makes equal bytes.

    >>> parse_document("a.json", format_document({"format": "a", "version": 1}), "a", 1, "")
    {'format': 'a', 'version': 1}
    """
    values = plain(content)
    return pretty_json(values | {"digest": digest(values)}).encode()


def parse_document(
    where: str, data: bytes, format: str, version: int, remedy: str
) -> dict[str, Any]:
    """The content that `format_document` wrote, without its digest.

    Raises RecordError, ending in `remedy`, where a byte has changed or it is of another kind.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != format:
        raise RecordError(f"{where}: not a file of {format}, or damaged; {remedy}")
    if document.get("version") != version:
        raise RecordError(
            f"{where}: written in version {str(document.get('version'))[:20]} of the format, this "
            f"is version {version}; use the superpose that wrote it"
        )
    content = {key: value for key, value in document.items() if key != "digest"}
    # Beside the digest, the bytes themselves: JSON has many spellings of one content, and a
    # document that was not spelt by us was changed by someone.
    try:
        sound = document.get("digest") == digest(content) and data == pretty_json(document).encode()
    except (ValueError, RecursionError):  # NaN, or nested too deeply to be ours
        sound = False
    if not sound:
        raise RecordError(f"{where}: damaged, its digest does not match; {remedy}")
    return content


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON data, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
