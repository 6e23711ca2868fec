"""What a layer sees: feature maps, raw kernels, the part of a picture that a unit saw."""
