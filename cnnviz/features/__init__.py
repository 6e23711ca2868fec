"""What a layer sees: feature maps, raw kernels, the part of an image that a unit saw."""
