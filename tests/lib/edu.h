/* SPDX-License-Identifier: GPL-2.0 */
/* QEMU's device edu: transfers by its driver hmm_edu, and its registers. */
#ifndef LIB_EDU_H
#define LIB_EDU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int edu_open(void);
int edu_copy(int edu, void *dst, const void *src, size_t size);

/* edu's registers, in BAR 0 */
#define EDU_DMA_SRC		0x80
#define EDU_DMA_DST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_CMD		0x98
#define EDU_DMA_RUN		1
#define EDU_DMA_FROM_DEVICE	2
#define EDU_BUFFER		0x40000

volatile uint8_t *edu_map_regs(void);
uint64_t edu_read(volatile uint8_t *regs, int reg);
void edu_write(volatile uint8_t *regs, int reg, uint64_t value);

/* Is the device writing to memory? */
bool edu_writes(volatile uint8_t *regs);

#endif
