// SPDX-License-Identifier: GPL-2.0
#include <stdlib.h>
#include <string.h>

#include "route.h"

bool lab_route_is(const char *route)
{
	return !strcmp(getenv("LAB_ROUTE") ?: "", route);
}

bool dma_bounces(void)
{
	return !lab_route_is("iommu") &&
	       !system("grep -qw swiotlb=force /proc/cmdline");
}

const char *alias_route(void)
{
	if (lab_route_is("bus"))
		return "alias_bus";
	/* DMA through the host bridge needs mapped addresses, and mappings bounce */
	if (lab_route_is("iommu") || (lab_route_is("host_bridge") && !dma_bounces()))
		return "alias_host_bridge";
	return NULL;
}

bool reachable(void)
{
	return alias_route();
}
