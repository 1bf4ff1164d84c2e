/* SPDX-License-Identifier: GPL-2.0 */
/* QEMU's monitor, which is at ttyS2. */
#ifndef LIB_QMP_H
#define LIB_QMP_H

/*
 * Send a command to the monitor, written with single quotes for readability. -EBUSY
 * if the monitor refuses.
 */
int qmp(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

#endif
