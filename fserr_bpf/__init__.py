"""FAN_FS_ERROR events, byte for byte, from stock unpatched Linux kernels."""

__version__ = "0.1.0"
