"""The strips of images in README.md, and the sheets of layers in vgg16/README.md: ``python gallery/strips.py``.

Feature maps are computed here; the images of filters are those in `vgg16`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import cnnviz
from cnnviz.pictures.colours import FEATURES, Pixels, drawable, painted_between

HERE = Path(__file__).parent
GALLERY = HERE / "vgg16"
DEPTHS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")
PHOTOGRAPHS = ("cat.jpg", "coffee.jpg")
FILTERS = {
    "block1_conv2": (3, 4),
    "block2_conv2": (0, 1),
    "block3_conv3": (0, 1),
    "block4_conv3": (40, 50),
    "block5_conv3": (14, 51),
}
TILE, SMALL = 208, 92


def enlarged(pixels: Pixels) -> Pixels:
    """A tile; every value stays a square."""
    return np.asarray(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST))


def maps() -> None:
    """A row for each photograph: the map of the most active channel at each depth."""
    network, tiles = cnnviz.load("vgg16"), list[cnnviz.Tile]()
    for row, name in enumerate(PHOTOGRAPHS):
        layers = cnnviz.feature_maps(network, HERE / "photos" / name, list(DEPTHS))
        shown = drawable(layers[DEPTHS[0]].shown.images[0])
        tiles.append(cnnviz.Tile(enlarged(shown), "" if row else "image", "" if row else "224 x 224"))
        for layer, result in layers.items():
            values = result.maps[0, result.order()[0]].numpy()
            pixels = painted_between(values, values.min(), values.max(), FEATURES)
            size = f"{values.shape[1]} x {values.shape[0]}"
            tiles.append(cnnviz.Tile(enlarged(pixels), "" if row else layer, "" if row else size))
    sheet = cnnviz.sheet(tiles, lines=[], columns=1 + len(DEPTHS), tile=TILE)
    Image.fromarray(sheet.pixels).save(HERE / "maps_by_depth.webp", quality=90)


def filters() -> None:
    """Two filters of a layer in each column, from edges to objects."""
    tiles = []
    for row in range(2):
        for layer, numbers in FILTERS.items():
            tiles.append(cnnviz.Tile(drawn(layer, numbers[row], TILE), layer, f"filter {numbers[row]}"))
    sheet = cnnviz.sheet(tiles, lines=[], columns=len(FILTERS), tile=TILE)
    Image.fromarray(sheet.pixels).save(HERE / "filters_by_depth.webp", quality=90)


def drawn(layer: str, number: int, side: int) -> Pixels:
    """The gallery's image of a filter, as a tile."""
    with Image.open(GALLERY / "images" / layer / f"{number:04d}.png") as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def layers() -> None:
    """A sheet of each layer of the gallery."""
    (GALLERY / "sheets").mkdir(exist_ok=True)
    for folder in sorted((GALLERY / "images").iterdir()):
        numbers = sorted(int(path.stem) for path in folder.glob("*.png"))
        tiles = [cnnviz.Tile(drawn(folder.name, number, SMALL), str(number)) for number in numbers]
        sheet = cnnviz.sheet(tiles, lines=[], columns=16, tile=SMALL)
        Image.fromarray(sheet.pixels).save(GALLERY / "sheets" / f"{folder.name}.webp", quality=82)


if __name__ == "__main__":
    maps()
    filters()
    layers()
