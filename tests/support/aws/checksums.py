"""
S3's checksums, computed without the library that the product uses.
"""

import base64
import hashlib
import zlib

# Width in bytes and reflected polynomial: https://reveng.sourceforge.io/crc-catalogue/
_CRCS = {"crc32c": (4, 0x82F63B78), "crc64nvme": (8, 0x9A6C9329AC4BC9B5)}


def digest(name: str, body: bytes) -> bytes:
    """
    Return the checksum with the name in its header, `x-amz-checksum-NAME`.
    """
    if name == "crc32":
        return zlib.crc32(body).to_bytes(4, "big")
    if name in _CRCS:
        return _crc(body, *_CRCS[name])
    return hashlib.new(name, body).digest()


def header_value(name: str, body: bytes) -> str:
    """
    Return the value of that header.
    """
    return base64.b64encode(digest(name, body)).decode()


def _crc(body: bytes, size_bytes: int, polynomial: int) -> bytes:
    """
    Compute a CRC bit by bit, as it is defined; slow.
    """
    value = ones = (1 << 8 * size_bytes) - 1
    for byte in body:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
    return (value ^ ones).to_bytes(size_bytes, "big")
