/* SPDX-License-Identifier: GPL-2.0 */
/* Functions that delete and add the soft-RoCE device. */
#ifndef LIB_RXE_H
#define LIB_RXE_H

int rxe_delete(void);
int rxe_add(void);

#endif
