/* SPDX-License-Identifier: GPL-2.0 */
/* What the demo and the benchmarks compare. */
#ifndef MODE_H
#define MODE_H

/*
 * P2PDMA: the buffer is in VRAM, and others reach it there
 * OFF: the same with the feature switched off, as in Linux without it
 * RAM: the buffer stays in RAM, where the CPU does the GPU's work
 */
enum mode { P2PDMA, OFF, RAM, NR_MODES };

static const char * const mode_names[NR_MODES] = { "p2pdma", "off", "ram" };

#endif
