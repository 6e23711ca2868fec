"""Every public function of cnnviz and every method of attribution, each as a call small enough to be made often.

For `tests/adversity/test_leaks.py` and the long run `tests/long_runs/leaks.py`. A call gives bytes that tell its
result from others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.methods import METHODS
from cnnviz.networks.network import Network
from cnnviz.synthesis.objectives import channel
from cnnviz.synthesis.parametrisations import PixelImage
from tests.support.networks import SmallVGG

SIDE = 32
WIDTHS = [4, "M", 6, 6, "M", 10, "M"]
LAYER = "block2_conv1"
FEW = {"steps": 2, "size": SIDE, "tries": 1}
CHEAP = {
    "integrated-gradients": {"steps": 4},
    "smoothgrad": {"samples": 2},
    "vargrad": {"samples": 2},
    "gradient-shap": {"samples": 2},
    "conductance": {"steps": 4},
    "occlusion": {"window": 16, "stride": 16},
    "feature-ablation": {"patches": 4},
    "lime": {"samples": 6, "patches": 4},
    "kernel-shap": {"samples": 6, "patches": 4},
}


class Fuse:
    """Blows in the middle of a forward pass, after so many of them."""

    def __init__(self) -> None:
        self.burnt = 0
        self.blows: tuple[int, BaseException] | None = None

    def burn(self) -> None:
        self.burnt += 1
        if self.blows and self.burnt == self.blows[0]:
            raise self.blows[1]

    def __deepcopy__(self, memo: object) -> "Fuse":
        return self


class Fused(SmallVGG):
    """As a user's own: in training mode, its weights ask for gradients and have some, its ReLUs work in place."""

    def __init__(self, seed: int, *, batch_norm: bool = False) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(WIDTHS, batch_norm=batch_norm)
            nn.init.normal_(self.classifier.weight)
        self.fuse = Fuse()
        self._tell_pictures_apart()
        for parameter in self.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)

    @torch.no_grad()
    def _tell_pictures_apart(self) -> None:
        """Without training every image would be of one class: grey gives 0 for each, and what differs counts much."""
        self.eval()
        self.classifier.bias.zero_()
        grey = self(torch.full((1, 3, SIDE, SIDE), 0.5))[0]
        self.classifier.bias.copy_(-grey)
        for parameter in self.classifier.parameters():
            parameter.mul_(1e3)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        for number, part in enumerate(self.features):
            if number == 4:
                self.fuse.burn()
            images = part(images)
        return self.classifier(self.pool(images).flatten(1))


@dataclass
class Scene:
    """A user's module, the network made of it, and images to show it."""

    module: Fused
    network: Network
    folder: Path

    @property
    def picture(self) -> Path:
        return self.folder / "0.png"

    @property
    def image(self) -> Tensor:
        return torch.from_numpy(np.asarray(Image.open(self.picture), np.float32) / 255).permute(2, 0, 1)[
            :, :SIDE, :SIDE
        ]


def scene(folder: Path, seed: int = 0, *, batch_norm: bool = False) -> Scene:
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed)
    for number in range(6):
        pixels = draws.integers(0, 256, (6, 5, 3)) if number % 2 else draws.integers(0, 256, (1, 1, 3))
        flat = Image.fromarray(pixels.astype(np.uint8)).resize((SIDE, SIDE + 4), Image.Resampling.BILINEAR)
        flat.save(folder / f"{number}.png")
    module = Fused(seed, batch_norm=batch_norm)
    return Scene(module, cnnviz.wrap(module, name="own", input_size=SIDE), folder)


def raw(tensor: Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()


def attributed(method: str, at: Scene, of: Callable[[Scene], nn.Module] = lambda at: at.network) -> bytes:
    return raw(cnnviz.attribute(of(at), at.image[None], 1, method=method, **CHEAP.get(method, {})))


def ascended(at: Scene) -> bytes:
    image = PixelImage(at.image[None])
    steps = list(cnnviz.ascend(at.network, channel(LAYER, 1), image, steps=2))
    return raw(steps[-1].scores) + raw(image())


def built(at: Scene) -> bytes:
    with TemporaryDirectory() as folder:
        cnnviz.build_gallery(at.network, folder, [LAYER], [3], steps=2, size=SIDE)
        return b"".join(file.read_bytes() for file in sorted(Path(folder).rglob("*.png")))


def compared(at: Scene) -> bytes:
    found = cnnviz.compare_methods(
        at.network, at.folder, methods=["grad-cam", "smoothgrad"], grids=1, cells=(1, 2), pictures=1, confidence=0
    )
    return found.sheet().png() + found.table().encode()


def explained(at: Scene) -> bytes:
    found = cnnviz.explain(
        at.network, at.picture, methods=["grad-cam", "guided-backprop"], checks=["curves", "infidelity", "sensitivity"]
    )
    return found.sheet().png() + found.overlay().png()


def averaged(at: Scene) -> bytes:
    explanations = cnnviz.explain(at.network, [at.picture, at.picture], 3, methods="grad-cam", checks=[])
    return cnnviz.mean_attribution(explanations).sheet().png()


def drawn(at: Scene) -> bytes:
    found = cnnviz.feature_maps(at.network, at.picture, LAYER)
    return found.sheet().png() + raw(cnnviz.feature_maps(at.module, at.image, "features.4").maps)


def figured(at: Scene) -> bytes:
    file = BytesIO()
    cnnviz.feature_maps(at.network, at.picture, LAYER).figure([0, 1]).savefig(file)
    return file.getvalue()


def reported(at: Scene) -> bytes:
    return cnnviz.make_report(at.network, at.picture, methods=["grad-cam"], filters=1, steps=2).html().encode()


def recorded(at: Scene) -> bytes:
    with TemporaryDirectory() as folder:
        path = cnnviz.kernel_sheet(at.network).save(Path(folder) / "kernels.png")
        return repr(cnnviz.read_record(path)).encode()


def loaded(_: Scene) -> bytes:
    networks = [cnnviz.load("vgg16-mini"), cnnviz.load("squeezenet1_1", weights="random")]
    return "".join(network.fingerprint for network in networks).encode()


CALLS: dict[str, Callable[[Scene], bytes]] = {
    "activations": lambda at: raw(cnnviz.activations(at.network, at.image[None], [LAYER, "block1_pool"])[LAYER]),
    "ascend": ascended,
    "attribute": partial(attributed, "grad-cam", of=lambda at: at.module),
    "build_gallery": built,
    "class_images": lambda at: cnnviz.class_images(at.network, [0, 3], **FEW).sheet().png(),
    "class_index": lambda at: bytes([cnnviz.class_index(at.network, 3)]),
    "compare_methods": compared,
    "dream": lambda at: cnnviz.dream(at.network, at.picture, LAYER, size=SIDE, steps=2).sheet().png(),
    "explain": explained,
    "feature_maps": drawn,
    "filter_images": lambda at: cnnviz.filter_images(at.network, LAYER, [0, 3, 4], film=True, **FEW).sheet().png(),
    "invert": lambda at: cnnviz.invert(at.network, at.picture, [LAYER], steps=2).sheet().png(),
    "kernel_sheet": lambda at: cnnviz.kernel_sheet(at.network).png(),
    "layer_table": lambda at: repr(cnnviz.layer_table(at.network)).encode(),
    "load": loaded,
    "mean_attribution": averaged,
    "make_report": reported,
    "maximize": lambda at: cnnviz.maximize(at.network, channel(LAYER, 1), seeds=[5], **FEW).sheet().png(),
    "predict": lambda at: repr(cnnviz.predict(at.network, at.picture)).encode(),
    "read_picture": lambda at: cnnviz.read_picture(at.picture).pixels().tobytes(),
    "read_record": recorded,
    "sheet": lambda at: cnnviz.sheet(
        [cnnviz.Tile(np.asarray(Image.open(at.picture)), "picture")], lines=["a sheet"]
    ).png(),
    "wrap": lambda at: cnnviz.wrap(at.module, name="again", input_size=SIDE).fingerprint.encode(),
    "feature_maps, as a figure": figured,
    **{f"attribute, {method}": partial(attributed, method) for method in METHODS},
}
