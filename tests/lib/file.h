/* SPDX-License-Identifier: GPL-2.0 */
/* Files of the kernel, in proc, sysfs and debugfs. */
#ifndef LIB_FILE_H
#define LIB_FILE_H

#include <stdbool.h>
#include <stdint.h>

/* One write. Returns 0 or a negative errno. */
int file_write(const char *path, const char *text);

/* Does a line of a file contain this text? */
bool file_says(const char *path, const char *text);

/* The number in a file, or the number after @name in it; ~0 on errors. */
uint64_t number_read(const char *path);
uint64_t field_read(const char *path, const char *name);

#endif
