/* SPDX-License-Identifier: GPL-2.0 */
/* Freezing of tasks, as in a suspend. */
#ifndef LIB_FREEZER_H
#define LIB_FREEZER_H

/* Freeze all tasks but the current one, and thaw them; -EBUSY if a task does not freeze. */
int machine_freeze(void);

#endif
