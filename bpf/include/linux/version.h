/* SPDX-License-Identifier: GPL-2.0 */
/* bcc's own helpers compare versions; the loader defines LINUX_VERSION_CODE. Our probes never do. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
