/* SPDX-License-Identifier: GPL-2.0 */
/* PCI devices, by their addresses in sysfs. */
#ifndef LIB_PCI_H
#define LIB_PCI_H

#include <stdbool.h>
#include <stddef.h>

#define PCI_DEVICES	"/sys/bus/pci/devices/"
#define PCI_ADDR_LEN	16

/* The PCI address of the only device with these IDs. */
int pci_find(unsigned int vendor, unsigned int device, char *pci);
bool pci_exists(const char *pci);
/* Is the device bound to this driver, or about to be? */
bool pci_is_bound(const char *pci, const char *driver);
/* The port above a device. */
int pci_port(const char *pci, char *port);
/* Reset a device, which keeps its driver. */
int pci_reset(const char *pci);
/* Map a BAR through sysfs; NULL on errors. */
void *pci_map_bar(const char *pci, int bar, size_t *size);

#endif
