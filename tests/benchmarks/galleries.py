"""What finding natural examples costs over showing the network the same pictures: ``python ... galleries.py FOLDER``.

Every shard of images is read, cut and shown plainly, then again by the pass that `cnnviz gallery examples` makes; the
rest of that command, which cuts and writes tiles, is timed by itself and added. One thread. At the end, the lists of
some layers are compared with those of plain activations.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import cnnviz
from cnnviz.galleries import natural_examples as examples
from cnnviz.galleries.building import build_gallery
from cnnviz.galleries.engines import InProcess
from cnnviz.galleries.excitation import BATCH, Excitation
from cnnviz.galleries.store import Store, read_lines
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from cnnviz.pictures.reading import picture_files, picture_from_bytes

CHECKED = {"block2_conv1": 32, "block4_conv3": 192, "block5_conv3": 192}  # layers, and their filters
TOP = 9


def images_of(network: Network, pictures: list[tuple[str, bytes]]) -> list[torch.Tensor]:
    return [show(network, picture_from_bytes(content, name), fit="crop").images for name, content in pictures]


class Timed(InProcess):
    """Shows every shard twice, and notes how long each took."""

    plain, passed = 0.0, 0.0

    def excite(self, layers, top, shards):
        for shard in shards:
            started = time.perf_counter()
            with torch.no_grad():
                for first in range(0, len(shard.pictures), BATCH):
                    self.network(torch.cat(images_of(self.network, shard.pictures[first : first + BATCH])))
            between = time.perf_counter()
            found: list[Excitation] = list(super().excite(layers, top, iter([shard])))
            self.plain += between - started
            self.passed += time.perf_counter() - between
            yield from found


def agreement(network: Network, folder: Path, store: Store) -> str:
    """In how many filters the lists are those of plain activations, all of them kept."""
    files = picture_files(folder)
    names = [path.relative_to(folder).as_posix() for path in files]
    peaks = {layer: torch.empty(len(files), count) for layer, count in CHECKED.items()}
    with torch.no_grad():
        for first in range(0, len(files), BATCH):
            some = [(path.name, path.read_bytes()) for path in files[first : first + BATCH]]
            maps = cnnviz.activations(network, torch.cat(images_of(network, some)), list(CHECKED))
            for layer, values in maps.items():
                peaks[layer][first : first + BATCH] = values.flatten(2).amax(2)
    same = total = 0
    for layer, values in peaks.items():
        for number, line in read_lines(store.folder / "examples" / f"{layer}.jsonl").items():
            order = values[:, number].argsort(descending=True, stable=True)[:TOP].tolist()
            same += [each["picture"] for each in line["top"]] == [
                names[row] for row in order if values[row, number] > 0
            ]
            total += 1
    return f"{same} of {total} lists are those of plain activations"


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    network = cnnviz.load("vgg16-mini")
    with TemporaryDirectory() as temporary:
        store = Store(temporary)
        build_gallery(network, temporary, steps=1, size=16, tries=1)
        engine = Timed(network)
        started = time.perf_counter()
        for passed in examples.find_examples(engine, store, folder, TOP):
            print(f"{passed.done} of {passed.total}", end="\r", file=sys.stderr)
        rest = time.perf_counter() - started - engine.plain - engine.passed
        ratio, whole = engine.passed / engine.plain, (engine.passed + rest) / engine.plain
        print(
            f"{passed.total} pictures: the pass {ratio:.2f} times plain passes, with tiles and files {whole:.2f} times"
        )
        print(agreement(network, folder, store))


if __name__ == "__main__":
    main()
