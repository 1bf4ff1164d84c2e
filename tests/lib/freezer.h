/* SPDX-License-Identifier: GPL-2.0 */
/* All tasks but the current one, as in a suspend. */
#ifndef LIB_FREEZER_H
#define LIB_FREEZER_H

/* Freeze and thaw them; -EBUSY if one does not freeze. */
int machine_freeze(void);

#endif
