"""Files of other tools: read as data from strangers, written whole or not at all."""

import hashlib
import json
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from superpose.records.files import (
    RecordError,
    make_folder,
    os_errors,
    plain,
    pretty_json,
    sync_folder,
    write_text,
)

CERTIFICATE = "certificate.json"
_JSON_LIMIT = 4 * 2**20
_HEADER_LIMIT = 2**20
_REMEDY = "fetch or write the folder again"


class FormatError(RecordError):
    """A folder of another tool that cannot be read or written: where, what is wrong, the law."""


class FormatWarning(UserWarning):
    """A trap of a format: what another tool would do with these files, or did to them."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises FormatError where it is none, or larger than 4 MiB."""
    with os_errors(path, "read"), path.open("rb") as file:
        data = file.read(_JSON_LIMIT + 1)
    try:
        content = json.loads(data) if len(data) <= _JSON_LIMIT else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a JSON object of at most {_JSON_LIMIT} bytes; {_REMEDY}")
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises FormatError where it is not one."""
    with os_errors(path, "read"), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
    if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
        raise FormatError(
            f"{path}: its header claims {length} bytes, where at most {_HEADER_LIMIT} of the "
            f"file's {size} can be one; {_REMEDY}"
        )
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: not a safetensors file ({error}); {_REMEDY}") from None


def read_pickle(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote, tensors and plain values only; nothing in the file is executed.

    Raises FormatError for a file that is not such an archive, is packed (what it unpacks to has
    no bound), or asks for anything but tensors and plain values.
    """
    with os_errors(path, "read"):
        if not zipfile.is_zipfile(path):
            raise FormatError(
                f"{path}: not an archive of torch.save (a bare pickle could run code, so it is "
                "not read); save it again with PyTorch 1.6 or later"
            )
        _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # What a hostile file makes the reader raise is up to the file.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise FormatError(
            f"{path}: refused, it is damaged or asks for more than tensors and plain values "
            f"({type(error).__name__}: {reason}); nothing of it was run"
        ) from None
    return named(content, path)


def named(content: Any, path: Path) -> dict[str, Any]:
    """The content, where it is values by name; raises FormatError where it is not."""
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise FormatError(
            f"{path}: holds a {type(content).__name__} and not tensors by name; {_REMEDY}"
        )
    return content


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise FormatError(f"{path}: a damaged archive ({error}); {_REMEDY}") from None
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise FormatError(
            f"{path}: a packed archive, where torch.save writes plain ones; {_REMEDY}"
        )


def take(
    tensors: Mapping[str, Any], path: Path, name: str, law: str, sizes: dict[str, int]
) -> Float[Tensor, "..."]:
    """A tensor by name, of the shape that `law` says, such as "d_in d_sae", and finite.

    Sizes not known yet are learnt from it. Raises FormatError naming file, key and law.

    >>> sizes = {"d_in": 2}
    >>> _ = take({"W": torch.zeros(2, 3)}, Path("w"), "W", "d_in d_sae", sizes)
    >>> sizes
    {'d_in': 2, 'd_sae': 3}
    """
    value, axes = tensors.get(name), law.split()
    expected = f"[{', '.join(axes)}]"
    if not isinstance(value, Tensor):
        names = ", ".join(sorted(map(str, tensors)))[:300]
        raise FormatError(
            f"{path}: {name!r} is missing among {names}; it should be a tensor of shape {expected}"
        )
    sound = value.layout == torch.strided and value.is_floating_point() and not value.is_meta
    if not sound or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise FormatError(
            f"{path}: {name!r} ({value.dtype}, {list(value.shape)}) is not a plain table of real "
            f"numbers of shape {expected}"
        )
    if value.ndim != len(axes) or any(
        sizes.setdefault(axis, length) != length or length == 0
        for axis, length in zip(axes, value.shape, strict=True)
    ):
        known = ", ".join(f"{axis} = {sizes[axis]}" for axis in axes if axis in sizes)
        raise FormatError(
            f"{path}: {name!r} has the shape {list(value.shape)}, where it should be {expected}"
            + (f" with {known}" if known else "")
        )
    if not torch.isfinite(value).all():
        count = int((~torch.isfinite(value)).sum())
        raise FormatError(
            f"{path}: {name!r} holds {count} NaN or infinite values of {value.numel()}; weights "
            "are finite numbers"
        )
    return value.detach()


def value_of(config: Mapping[str, Any], path: Path, key: str, law: str, default: Any = None) -> Any:
    """A value of a configuration, checked by `law`, the name of one of the laws below.

    `default` stands for a key that is missing; without one, that raises FormatError as well.
    """
    value = config.get(key, default)
    if value is None and key not in config:
        raise FormatError(f"{path}: {key!r} is missing; it should be {law}")
    if not _LAWS[law](value):
        raise FormatError(f"{path}: {key!r} is {str(value)[:80]!r}, where it should be {law}")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_LAWS: dict[str, Callable[[Any], bool]] = {
    "a whole number of at least 1": lambda value: _whole(value) and value >= 1,
    "a whole number of at least 0": lambda value: _whole(value) and value >= 0,
    "true or false": lambda value: isinstance(value, bool),
    "a text": lambda value: isinstance(value, str),
    "a table of keys": lambda value: isinstance(value, dict),
}
COUNT, COUNT_OR_ZERO, FLAG, TEXT, TABLE = _LAWS


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, moved to `folder` at the end; on an error nothing is left behind.

    An earlier export at `folder` is replaced; any other files there raise FormatError.
    """
    with os_errors(folder, "write"):
        earlier = _require_free(folder)
        make_folder(folder.absolute().parent)
        mark = secrets.token_hex(8)
        hidden = folder.parent / f".{folder.name}.{mark}"
        temporary, aside = (hidden.with_name(f"{hidden.name}.{end}") for end in ("tmp", "old"))
        temporary.mkdir()
    try:
        yield temporary
        with os_errors(folder, "write"):
            if earlier:
                folder.rename(aside)
            temporary.rename(folder)
            sync_folder(folder.absolute().parent)
    except BaseException:
        if earlier and not folder.exists():
            aside.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _require_free(folder: Path) -> bool:
    """Whether an earlier export is there; raises FormatError where anything else is."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FormatError(f"{folder}: not a folder; choose another name")
    if not folder.exists():
        return False
    known = {folder / CERTIFICATE}
    for certificate in folder.glob(f"**/{CERTIFICATE}"):
        listed = read_json(certificate).get("files")
        names = listed if isinstance(listed, dict) else {}
        known |= {certificate} | {certificate.parent / name for name in names}
    strange = [path for path in folder.rglob("*") if path.is_file() and path not in known]
    if strange:
        raise FormatError(
            f"{folder}: holds {strange[0].name!r}, which is of other origin; choose another folder"
        )
    return True


def write_certificate(folder: Path, about: Mapping[str, Any]) -> None:
    """Put certificate.json beside the files of a folder, with the digest of each."""
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != CERTIFICATE
    }
    write_text(folder / CERTIFICATE, pretty_json(plain({**about, "files": files})))
