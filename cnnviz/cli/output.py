"""Where results go: file names, checks before any work, numbers as files.

A file that is there is replaced by the same command's result, or with --force; otherwise the new one gets a number.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import click

if TYPE_CHECKING:
    from cnnviz.networks.network import Network
    from cnnviz.pictures.sheets import Sheet

SAME = ("command", "picture", "settings")  # what a record and that of the same command agree on, besides the network


@dataclass(frozen=True)
class Target:
    """Where results go, as it was asked for.

    Attributes:
        output: a file, or a folder: one that is there, or a name that ends in a slash or has no ending.
        force: whether files that are there are replaced.
    """

    output: str | None
    force: bool

    @property
    def folder(self) -> Path | None:
        """The folder that sheets go to; None where -o names a file."""
        path = Path(self.output or "")
        is_folder = str(self.output or "/").endswith(("/", os.sep)) or path.is_dir() or not path.suffix
        return path if is_folder else None

    def file(self, *parts: str, ending: str = ".png") -> Path:
        """The file asked for, or one that is named after its parts: IMAGE_MODEL_COMMAND_LAYER."""
        folder = self.folder
        return Path(self.output or "") if folder is None else folder / sheet_file(*parts).with_suffix(ending)

    def check_distinct(self, sheets: Iterable[tuple[Path, Path]]) -> None:
        """Notice before any work that sheets would be one file; each is given as its image and the file it goes to."""
        sheets = list(sheets)
        if self.folder is None and len(sheets) > 1:
            raise click.UsageError(f"{len(sheets)} sheets do not fit into one file; -o must name a folder.")
        makers: dict[Path, Path] = {}
        for picture, file in sheets:
            if file in makers:
                raise click.UsageError(
                    f"the sheets of {makers[file]} and {picture} would both be {file}; take them in turn."
                )
            makers[file] = picture

    def check(self, *apart: Path) -> None:
        """Notice before any work that a sheet could not be written, or would be written over one of these images."""
        check_sheet(self.file("sheet"))
        for picture in apart:
            if self.folder is None:
                check_apart(self.file(), picture)

    def save(self, sheet: "Sheet", file: Path) -> Path:
        """Write a sheet where nothing else is lost; gives the file it went to."""
        return sheet.save(self.free(file, sheet.made))

    def free(self, file: Path, made: Mapping[str, object] | None = None) -> Path:
        """`file`, or where something else is there that must not be replaced, the next number of it that is free.

        Args:
            made: how what is to be written was made; the same made again may be replaced.
        """
        return file if self.force else next(path for path in _numbered(file) if _replaceable(path, made))


def _numbered(file: Path) -> Iterator[Path]:
    """cat.png, cat-2.png, cat-3.png and so on."""
    yield file
    for number in count(2):
        yield file.with_stem(f"{file.stem}-{number}")


def _replaceable(file: Path, made: Mapping[str, object] | None) -> bool:
    """Whether nothing is there, or what the same command has made of the same image with the same network."""
    if not os.path.lexists(file):
        return True
    if made is None or not file.is_file():
        return False
    from cnnviz.errors import PictureError
    from cnnviz.networks.provenance import fingerprint_in
    from cnnviz.pictures.records import read_record

    try:
        there = read_record(file)
    except PictureError:
        return False
    record = json.loads(json.dumps(made))  # as it is read back
    network = there.get("network")
    same = all(there.get(part) == record.get(part) for part in SAME)
    return same and isinstance(network, dict) and fingerprint_in(network) == fingerprint_in(record["network"])


def named(network: "Network") -> dict[str, str]:
    """A network in JSON."""
    return {"name": network.name, "weights": network.weights}


def about(picture: Path, sha256: str | None) -> dict[str, Any]:
    """An image in JSON."""
    return {"image": {"file": str(picture), "sha256": sha256}, "picture": str(picture)}


def array_name(picture: Path, name: str, *, several: bool) -> str:
    """The name of an array, with its image's where there are several; a zip file's names are UTF-8, a file's need not
    be.
    """
    return f"{os.fsencode(picture.stem).decode('utf-8', 'replace')}/{name}" if several else name


def sheet_file(*parts: str) -> Path:
    """The name of a sheet that nobody named: its parts, without what file systems mind."""
    return Path(re.sub(r"[^\w.-]+", "-", "_".join(parts)) + ".png")


def check_sheet(file: Path) -> None:
    """Notice before any work that a sheet could not be written, for its ending or its place."""
    from cnnviz.files import check_writable
    from cnnviz.pictures.sheets import picture_format

    picture_format(file)
    check_writable(file)


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
            info = ZipInfo(f"{name}.npy")
            info.compress_type = ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as entry:
                write_array(entry, array, allow_pickle=False)
