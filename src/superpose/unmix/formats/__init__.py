"""Dictionaries of other tools: read, written and converted, with a certificate each time.

SAELens, dictionary_learning and sparsify folders are told apart by their files. What a format
does not know is refused in one sentence; what is likely to mislead is a `FormatWarning`.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from superpose.unmix.formats import dictionary_learning, saelens, saelens_export, sparsify
from superpose.unmix.formats.certificate import Certificate, certify, probes
from superpose.unmix.formats.files import (
    FormatError,
    FormatWarning,
    replacing,
    write_certificate,
)
from superpose.unmix.formats.pieces import MATRICES, Draft, Reading, require_member
from superpose.unmix.sae import SAE
from superpose.unmix.sae import load as load_record

__all__ = [
    "FORMATS",
    "Certificate",
    "FormatError",
    "FormatWarning",
    "Read",
    "convert",
    "load",
    "probes",
    "read",
    "recognise",
    "save",
]

FORMATS = ("superpose", "saelens", "dictionary_learning", "sparsify")
_FILES = {
    "superpose": ("manifest.json",),
    "saelens": (saelens.CONFIG, saelens.WEIGHTS),
    "dictionary_learning": (dictionary_learning.CONFIG, dictionary_learning.WEIGHTS),
    "sparsify": (sparsify.CONFIG, sparsify.WEIGHTS),
}
_MEMBER = re.compile(r"(?:seed_?|trainer_)(\d{1,6})")
_WRITERS: dict[str, Callable[[Path, Draft], None]] = {
    "saelens": saelens_export.write,
    "dictionary_learning": dictionary_learning.write,
    "sparsify": sparsify.write,
}


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A dictionary as read from a folder, and the proof that it is the one that lies there.

    `certificate` is None for superpose's own records, which have digests instead. `firing` is the
    share of samples on which each latent is active, [*run, d_sae], where the folder knows it.
    """

    sae: SAE
    format: str
    certificate: Certificate | None
    firing: Float[Tensor, "*run d_sae"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What a reader may be told that is not in the folder."""

    scale: float | None = None
    raw: bool = False


def recognise(folder: str | Path) -> str:
    """The format of a folder, by its files, or of the members it holds; raises FormatError."""
    folder = Path(folder)
    found = _format_of(folder)
    if found:
        return found
    below = {_format_of(member) for member in _members(folder)} - {""}
    if len(below) == 1:
        return below.pop()
    raise FormatError(f"{folder}: {_nothing_here(folder)}")


def load(folder: str | Path, *, scale: float | None = None, raw: bool = False) -> SAE:
    """The dictionary in a folder of any format: `read(...).sae`."""
    return read(folder, scale=scale, raw=raw).sae


def read(folder: str | Path, *, scale: float | None = None, raw: bool = False) -> Read:
    """Read a folder of SAELens, dictionary_learning, sparsify or superpose, and certify it.

    A folder of members (seed_0, seed_1, ..., seed0 ..., trainer_0 ...) becomes a stack where their
    shapes and codes are equal. `scale` is the factor that SAELens multiplied activations by where
    its folder does not say it; `raw` takes a decoder of dictionary_learning's AutoEncoder as it
    lies in the file, which that library renormalises. Traps are told as FormatWarning.

    Raises FormatError, with nothing of a file executed, for what is damaged or not known here, and
    where the dictionary is not the function that the folder's own tool computes.

    >>> import tempfile
    >>> from superpose.unmix.codes import TopK
    >>> eye, zeros = torch.eye(3), torch.zeros(3)
    >>> folder = f"{tempfile.mkdtemp()}/sae"
    >>> _ = save(SAE(eye, zeros, eye, zeros, TopK(d_sae=3, k=2)), folder, "saelens")
    >>> found = read(folder)
    >>> found.format, found.sae.code.k, found.certificate.passed
    ('saelens', 2, True)
    """
    folder, options = Path(folder), _Options(scale=scale, raw=raw)
    format = recognise(folder)
    if _format_of(folder):
        return _read_member(folder, format, options)
    members = _members(folder)
    found = [_read_member(member, format, options) for member in members]
    certificates = [each.certificate for each in found if each.certificate is not None]
    firing = [each.firing for each in found if each.firing is not None]
    return Read(
        _stacked([each.sae for each in found], members),
        format,
        Certificate.of(certificates) if certificates else None,
        torch.stack(firing) if len(firing) == len(found) else None,
    )


def save(
    sae: SAE,
    folder: str | Path,
    format: str,
    *,
    firing: Float[Tensor, "*run d_sae"] | None = None,
) -> Certificate:
    """Write a dictionary as another tool keeps it, read it back by that tool's formula, compare.

    A stack gives a folder a member: seed_0, seed_1, ... Beside the files lies `certificate.json`:
    the certificate, and the digest of each file it is about. An earlier export at `folder` is
    replaced. `firing`, the share of samples on which each latent is active, goes with SAELens's
    files. Raises FormatError for a dictionary that the format does not know, for a folder with
    other files in it, and for a certificate that fails: then nothing is left behind.

    >>> import tempfile
    >>> from superpose.unmix.codes import L1
    >>> eye, zeros = torch.eye(3), torch.zeros(3)
    >>> sae = SAE(eye, zeros, eye, zeros, L1(d_sae=3, coefficient=0.1))
    >>> certificate = save(sae, f"{tempfile.mkdtemp()}/sae", "dictionary_learning")
    >>> certificate.passed, certificate.supports_equal
    (True, True)
    """
    if format not in _WRITERS:
        raise FormatError(
            f"save(format={format!r}): the formats are {', '.join(FORMATS)}; "
            "sae.save(folder) writes superpose's own"
        )
    return _write(sae, Path(folder), format, firing, {})


def convert(
    source: str | Path,
    target: str | Path,
    format: str = "superpose",
    *,
    scale: float | None = None,
    raw: bool = False,
) -> Certificate | None:
    """Read a folder of one format and write another; both ends are certified.

    Returns the certificate of what was written, with `certificate.json` there keeping that of
    what was read as well; to superpose, which writes records with digests, that of what was read.
    `scale` and `raw` are those of `read`. Raises FormatError as `read` and `save` do.
    """
    found = read(source, scale=scale, raw=raw)
    if format == "superpose":
        found.sae.save(target)
        return found.certificate
    if format not in _WRITERS:
        raise FormatError(f"convert(format={format!r}): the formats are {', '.join(FORMATS)}")
    about = found.certificate.about() if found.certificate else {"format": found.format}
    return _write(found.sae, Path(target), format, found.firing, {"source": about})


def _write(
    sae: SAE,
    folder: Path,
    format: str,
    firing: Float[Tensor, "*run d_sae"] | None,
    remarks: dict[str, Any],
) -> Certificate:
    members = _members_of(sae)
    alone = sae.W_enc.ndim == 2
    shares = [None] * len(members) if firing is None else [firing] if alone else list(firing)
    if len(shares) != len(members):
        raise FormatError(
            f"save(format={format!r}): firing has {len(shares)} rows for {len(members)} members"
        )
    drafts = []
    for member, share in zip(members, shares, strict=True):
        require_member(member, format)
        drafts.append(_draft(member, format, share))
    _tell([trap for drawn in drafts for trap in drawn.traps])
    with replacing(folder) as temporary:
        certificates = []
        for number, (member, drawn) in enumerate(zip(members, drafts, strict=True)):
            place = temporary if alone else temporary / f"seed_{number}"
            place.mkdir(exist_ok=True)
            _WRITERS[format](place, drawn)
            back = _parse(place, format, _Options())
            certificate = certify(member, back.formula, format, folder)
            write_certificate(place, {**certificate.about(), **remarks})
            certificates.append(certificate)
    return Certificate.of(certificates)


def _draft(member: SAE, format: str, firing: Float[Tensor, " d_sae"] | None) -> Draft:
    if format == "saelens":
        return saelens_export.draft(member, firing)
    return dictionary_learning.draft(member) if format != "sparsify" else sparsify.draft(member)


def _parse(folder: Path, format: str, options: _Options) -> Reading:
    if format == "saelens":
        return saelens.parse(folder, options.scale)
    if format == "dictionary_learning":
        return dictionary_learning.parse(folder, options.raw)
    return sparsify.parse(folder)


def _read_member(folder: Path, format: str, options: _Options) -> Read:
    if format == "superpose":
        return Read(load_record(folder), format, None)
    found = _parse(folder, format, options)
    _tell(found.traps)
    certificate = certify(found.sae, found.formula, format, folder)
    return Read(found.sae, format, certificate, found.firing)


def _members_of(sae: SAE) -> list[SAE]:
    if sae.W_enc.ndim == 2:
        return [sae]
    if sae.W_enc.ndim > 3:
        raise FormatError(
            f"save: this stack has {sae.W_enc.ndim - 2} axes, and folders of members have one; "
            "save sae[i] for each i"
        )
    return [sae[number] for number in range(len(sae))]


def _stacked(saes: Sequence[SAE], folders: Sequence[Path]) -> SAE:
    first = saes[0]
    for other, folder in zip(saes, folders, strict=True):
        same = (
            other.W_enc.shape == first.W_enc.shape
            and other.W_dec.shape == first.W_dec.shape
            and other.code == first.code
            and other.subtract == first.subtract
        )
        if not same:
            raise FormatError(
                f"{folder}: {list(other.W_enc.shape)} with {other.code} does not stack with "
                f"{list(first.W_enc.shape)} and {first.code} of {folders[0].name}; read the "
                "folders one by one"
            )
    weights = {name: torch.stack([getattr(sae, name) for sae in saes]) for name in MATRICES}
    extra = {name: torch.stack([sae.extra[name] for sae in saes]) for name in first.extra}
    advice = tuple(dict.fromkeys(line for sae in saes for line in sae.advice))
    return replace(first, **weights, extra=extra, advice=advice, history=None)


def _format_of(folder: Path) -> str:
    """The format whose files all lie in this very folder; "" where there is none."""
    for format, names in _FILES.items():
        if all((folder / name).is_file() for name in names):
            return format
    return ""


def _members(folder: Path) -> list[Path]:
    """The folders of members in a folder, by number."""
    found = {
        path: int(match[1])
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _MEMBER.fullmatch(path.name)) and _format_of(path)
    }
    return sorted(found, key=lambda path: (found[path], path.name))


def _nothing_here(folder: Path) -> str:
    """Why a folder is not one that can be read."""
    if folder.is_file():
        return "a file; an autoencoder is a folder of files, so give the folder that holds it"
    if not folder.is_dir():
        return "there is no such folder"
    below = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and (_format_of(path) or _members(path))
    )
    if below:
        return f"several dictionaries, one a folder; choose one of {', '.join(below)[:200]}"
    formats = "; ".join(f"{name}: {' and '.join(files)}" for name, files in _FILES.items())
    return f"not a dictionary of a known format ({formats})"


def _tell(traps: Sequence[str]) -> None:
    """Warn whoever called the library, however many of its functions lie between."""
    level, outermost, frame = 1, 1, inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "superpose":
            outermost = level
        level, frame = level + 1, frame.f_back
    for trap in dict.fromkeys(traps):
        warnings.warn(trap, FormatWarning, stacklevel=outermost + 1)
