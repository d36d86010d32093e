/* SPDX-License-Identifier: GPL-2.0 */
/* bcc brings its own; this file only satisfies the include. */
