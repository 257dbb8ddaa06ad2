"""Reading what other stages wrote: a field of a stage names a folder, and a file in it holds records."""

from pathlib import Path

from stages import records
from stages.errors import BadInput
from stages.records import Record


def read_records(path: Path, kind: type[Record], field: str) -> list[Record]:
    """The records in a Parquet file. Raises BadInput for `field`, in one line, where the file is missing, cannot be
    read, or holds records of another kind."""
    try:
        return records.read(path, kind)
    except OSError as error:
        raise BadInput(field, f"{path} cannot be read: {error.strerror or 'there is no such file'}") from error
    except ValueError as error:
        raise BadInput(field, str(error).splitlines()[0]) from error
