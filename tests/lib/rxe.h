/* SPDX-License-Identifier: GPL-2.0 */
/* The software RDMA device, which comes and goes. */
#ifndef LIB_RXE_H
#define LIB_RXE_H

int rxe_delete(void);
int rxe_add(void);

#endif
