"""Small networks that the tests look into."""

from collections.abc import Sequence

from torch import Tensor, cat, nn
from torch.nn import functional
from torchvision.models.vgg import make_layers

Widths = Sequence[int | str]  # of convolutions, and "M" for a pool

VGG16_WIDTHS = [4, 4, "M", 6, 6, "M", 8, 8, 8, "M", 10, 10, 10, "M", 10, 10, 10, "M"]


class SmallVGG(nn.Module):
    """VGG16's layout, torchvision's own layers, in-place ReLUs included, at a width that runs in no time."""

    def __init__(self, widths: Widths = VGG16_WIDTHS, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.features = make_layers(widths, batch_norm=batch_norm)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(10, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(images)).flatten(1))


class LeNet(nn.Module):
    """LeNet-style, for 28 x 28 grey digits; takes no other size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        maps = functional.max_pool2d(functional.relu(self.conv2(maps)), 2)
        features = functional.relu(self.fc2(functional.relu(self.fc1(maps.view(-1, 16 * 5 * 5)))))
        return self.fc3(features)


class SmallUNet(nn.Module):
    """U-Net's layout, one level deep, for 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.deep = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.merge = nn.Sequential(nn.Conv2d(12, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down(images)
        coarse = self.up(self.deep(self.pool(fine)))
        return self.head(self.merge(cat([fine, coarse], 1)))
