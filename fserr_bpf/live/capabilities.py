"""The layouts of capget(2) and capset(2), ``include/uapi/linux/capability.h``."""

from __future__ import annotations

import ctypes

VERSION_3 = 0x20080522


class Header(ctypes.Structure):
    """``struct __user_cap_header_struct``; pid 0 is the caller."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Data(ctypes.Structure):
    """``struct __user_cap_data_struct``: 32 capabilities; a call takes two of them."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )
