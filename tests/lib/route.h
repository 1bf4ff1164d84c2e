/* SPDX-License-Identifier: GPL-2.0 */
/* The route from devices to VRAM. It depends on TOPOLOGY. */
#ifndef LIB_ROUTE_H
#define LIB_ROUTE_H

#include <stdbool.h>

/* Do devices reach each other by this route of lab/topologies? */
bool lab_route_is(const char *route);

/* Does all memory mapped for DMA go through bounce buffers, as with swiotlb=force? */
bool dma_bounces(void);

/*
 * The counter of the route from a device to the VRAM of a GPU; NULL if the device
 * cannot reach it.
 */
const char *alias_route(void);
bool reachable(void);

#endif
