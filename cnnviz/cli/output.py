"""Where results go: file names, checks before any work, numbers as files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import click


def sheet_file(*parts: str) -> Path:
    """The name of a sheet that nobody named: its parts, without what file systems mind."""
    return Path(re.sub(r"[^\w.-]+", "-", "_".join(parts)) + ".png")


def check_sheet(output: Path | None) -> None:
    """Notice before any work that a sheet could not be written, for its ending or its place."""
    from cnnviz.files import check_writable
    from cnnviz.pictures.sheets import picture_format

    if output is not None:
        picture_format(output)
    check_writable(output or sheet_file("sheet"))


def check_apart(file: Path, picture: Path, option: str = "-o") -> None:
    """Notice that a sheet would be written over the image it is about; `option` names another place."""
    if file.resolve() == picture.resolve():
        raise click.UsageError(f"the sheet would overwrite the image {file}; choose another place with {option}.")


def check_npz(path: Path | None) -> None:
    """Notice before any work that arrays could not be written, for their file's ending or its place."""
    from cnnviz.files import check_writable

    if path is not None:
        if path.suffix != ".npz":
            raise click.UsageError(f"--save-arrays writes .npz files, not {path.name!r}.")
        check_writable(path)


def save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name, whatever their names are."""
    from numpy.lib.format import write_array

    from cnnviz.files import whole_file

    with whole_file(path) as file, ZipFile(file, "w") as archive:  # np.savez refuses a layer named "file"
        for name, array in arrays.items():
            # dated 1980, whatever the clock says: before that year there are no archives
            about = ZipInfo(f"{name}.npy")
            about.compress_type = ZIP_DEFLATED
            with archive.open(about, "w", force_zip64=True) as entry:
                write_array(entry, array, allow_pickle=False)
