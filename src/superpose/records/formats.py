"""Arrays and tables as bytes: equal content makes equal bytes, and parsing has bounds."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as format_safetensors

from superpose.records.files import PathLike, RecordError

_HEADER_LIMIT = 2**20
_TENSOR_LIMIT = 10_000
_UNPACKED_LIMIT = 2**30
_DTYPES = {np.dtype(kind) for kind in "?bBhHiIlLqQefd"}


def format_table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def parse_table(
    path: PathLike, data: bytes, columns: Sequence[str] | None = None, rows: int | None = None
) -> pa.Table:
    """The table in the bytes of a Parquet file, or some of its columns; raises RecordError.

    Where it should have `rows` rows, one that says otherwise is refused before it is unpacked.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            about = file.metadata
            groups = [about.row_group(k).total_byte_size for k in range(about.num_row_groups)]
            if (rows is not None and about.num_rows != rows) or sum(groups) > _UNPACKED_LIMIT:
                raise RecordError(
                    f"{path}: it claims {about.num_rows} rows of {sum(groups)} bytes in all, which "
                    "is not what should be here; make the record again"
                )
            table = file.read(columns, use_threads=False)  # half the time for many small ones
            table.validate()
            return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordError(f"{path}: not readable ({error}); make the record again") from None


def format_arrays(path: PathLike, arrays: Mapping[str, np.ndarray]) -> bytes:
    for name, array in arrays.items():
        if array.dtype.newbyteorder("=") not in _DTYPES or name == "__metadata__":
            raise RecordError(
                f"{path}: cannot keep the array {name!r} of dtype {array.dtype}; "
                "arrays hold numbers or bool, and __metadata__ is taken"
            )
    native = {
        name: np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        for name, array in arrays.items()
    }
    data = format_safetensors(native)
    _check_header(path, data)
    return data


def parse_arrays(path: PathLike, data: bytes) -> dict[str, np.ndarray]:
    _check_header(path, data)
    try:
        return {name: array.copy() for name, array in parse_safetensors(data).items()}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: not readable ({error}); make the record again") from None


def _check_header(path: PathLike, data: bytes) -> None:
    """Bounds on what the parser is given: a digest says who wrote a file, not that it is sane."""
    length = int.from_bytes(data[:8], "little")
    if length > min(_HEADER_LIMIT, len(data) - 8):
        raise RecordError(
            f"{path}: its header of {length} bytes is past the limit of {_HEADER_LIMIT} or the "
            "end of the file; keep fewer arrays in one record"
        )
    try:
        count = len(json.loads(data[8 : 8 + length]))
    except (ValueError, RecursionError, TypeError):
        raise RecordError(f"{path}: its header is not JSON; make the record again") from None
    if count > _TENSOR_LIMIT:
        raise RecordError(
            f"{path}: {count} arrays, more than {_TENSOR_LIMIT}; stack them into fewer"
        )
