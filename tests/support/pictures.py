"""Image files of all kinds, small and bad ones too."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

COLOURS = np.array(
    [[[250, 10, 20], [10, 240, 30], [20, 30, 230]], [[255, 255, 255], [0, 0, 0], [128, 64, 32]]], np.uint8
)
LARGE = COLOURS.repeat(16, 0).repeat(16, 1)


def bomb() -> bytes:
    """A PNG that says it is 30,000 x 30,000."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    begin = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(bytes(100))
    return begin + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(LARGE.repeat(4, 0).repeat(4, 1)).save(buffer, "JPEG")
    return buffer.getvalue()
