// SPDX-License-Identifier: GPL-2.0
/*
 * Aliases of device-private pages: where in a PCI BAR, and for which peer.
 *
 * A page table walk of mm/hmm.c comes here for a device-private page that its
 * caller cannot reach privately. What it reads is published with RCU: the
 * window in the pagemap, and whatever p2pdma knows of the fabric. The answer
 * needs no reference, because it is good only until the caller's interval
 * notifier fires, and an exporter migrates all of its pages, which fires it,
 * before it takes a window away.
 */
#define pr_fmt(fmt) "hmm_p2pdma: " fmt

#include <linux/hmm_p2pdma.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/maple_tree.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pci-p2pdma.h>
#include <linux/percpu.h>
#include <linux/sysfs.h>

#include "hmm_p2pdma.h"

#define CREATE_TRACE_POINTS
#include <trace/events/hmm.h>

DEFINE_STATIC_KEY_TRUE(hmm_p2pdma_key);

/* All windows, by the PFNs of their BARs: alias entries lead back to them. */
static struct maple_tree hmm_windows =
	MTREE_INIT(hmm_windows, MT_FLAGS_USE_RCU);

/* In pages. Never reset, like /proc/vmstat. */
struct hmm_p2pdma_stats {
	unsigned long alias[HMM_NR_ROUTES];
	unsigned long fallback[HMM_NR_FALLBACKS];
};

static DEFINE_PER_CPU(struct hmm_p2pdma_stats, hmm_p2pdma_stats);

/**
 * hmm_window_register() - declare where a pagemap's memory shows up on the bus
 * @pgmap: a pagemap of type MEMORY_DEVICE_PRIVATE, after memremap_pages()
 * @window: the window; see there for what to fill in and for its lifetime
 *
 * From here on hmm_range_fault() may hand out the pages of @pgmap as aliases.
 * A pagemap has at most one window.
 *
 * Context: May sleep.
 * Return: 0 on success, or:
 *
 * -EINVAL: @pgmap is not device-private, or @window has no provider, is empty,
 *	not page aligned, or wraps around.
 * -EBUSY: @pgmap has a window already.
 * -EEXIST: @window overlaps a window of another pagemap.
 * -ENOMEM: Out of memory.
 * -EOPNOTSUPP: The kernel was built without CONFIG_HMM_P2PDMA. As with the
 *	others, the driver can go on: its pages migrate to system memory.
 */
int hmm_window_register(struct dev_pagemap *pgmap, struct hmm_window *window)
{
	unsigned long first = PHYS_PFN(window->phys), last;
	int ret;

	if (pgmap->type != MEMORY_DEVICE_PRIVATE || !window->provider ||
	    !window->nr_pages || !PAGE_ALIGNED(window->phys) ||
	    check_add_overflow(first, window->nr_pages - 1, &last) ||
	    last > PHYS_PFN(PHYS_ADDR_MAX))
		return -EINVAL;

	if (rcu_access_pointer(pgmap->window))
		return -EBUSY;

	ret = mtree_insert_range(&hmm_windows, first, last, window, GFP_KERNEL);
	if (ret)
		return ret;

	rcu_assign_pointer(pgmap->window, window);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_window_register);

/**
 * hmm_window_unregister() - take a pagemap's window away
 * @pgmap: a pagemap; it is fine if it has no window
 *
 * The exporter has already migrated all of its pages to system memory, with
 * nothing that could bring any back, so that no importer holds an alias. When
 * this returns no walk uses the window either: its memory, its mapping and the
 * BAR may go.
 *
 * Context: May sleep. Serialized with hmm_window_register() by the caller.
 */
void hmm_window_unregister(struct dev_pagemap *pgmap)
{
	struct hmm_window *window = rcu_access_pointer(pgmap->window);

	if (!window)
		return;

	RCU_INIT_POINTER(pgmap->window, NULL);
	mtree_erase(&hmm_windows, PHYS_PFN(window->phys));
	synchronize_rcu();
}
EXPORT_SYMBOL_GPL(hmm_window_unregister);

static struct hmm_window *hmm_pfn_to_window(unsigned long hmm_pfn)
{
	return mtree_load(&hmm_windows, hmm_pfn & ~HMM_PFN_FLAGS);
}

/**
 * hmm_pfn_to_provider() - the p2pdma provider of an alias
 * @hmm_pfn: an entry with HMM_PFN_ALIAS set
 *
 * Together with hmm_pfn_to_phys() this is what a DMA mapping needs.
 *
 * Context: Any; the lock that makes the entry valid is held. The provider is
 * good for as long as the entry is.
 * Return: the provider; NULL if @hmm_pfn is not a valid alias.
 */
struct p2pdma_provider *hmm_pfn_to_provider(unsigned long hmm_pfn)
{
	struct hmm_window *window;

	if (!hmm_pfn_is_alias(hmm_pfn))
		return NULL;

	window = hmm_pfn_to_window(hmm_pfn);
	return window ? window->provider : NULL;
}
EXPORT_SYMBOL_GPL(hmm_pfn_to_provider);

/**
 * hmm_alias_to_iosys_map() - the kernel mapping of an alias
 * @hmm_pfn: an entry with HMM_PFN_ALIAS set
 * @map: where the mapping goes
 *
 * Most importers want hmm_pfn_map_local(), which takes system memory as well.
 *
 * Context: Any; the lock that makes the entry valid is held, and the mapping is
 * good for as long as the entry is. @map is cleared if @hmm_pfn is not a valid
 * alias, or if the exporter has no kernel mapping.
 */
void hmm_alias_to_iosys_map(unsigned long hmm_pfn, struct iosys_map *map)
{
	struct hmm_window *window = hmm_pfn_to_window(hmm_pfn);

	if (WARN_ON_ONCE(!window) || iosys_map_is_null(&window->map)) {
		iosys_map_clear(map);
		return;
	}

	*map = window->map;
	iosys_map_incr(map, hmm_pfn_to_phys(hmm_pfn) - window->phys);
}
EXPORT_SYMBOL_GPL(hmm_alias_to_iosys_map);

static enum hmm_route hmm_window_route(const struct hmm_window *window,
				       const struct hmm_client *client)
{
	if (!client->dma_dev)
		return iosys_map_is_null(&window->map) ? HMM_ROUTE_NONE :
							 HMM_ROUTE_CPU;

	switch (pci_p2pdma_map_type(window->provider, client->dma_dev)) {
	case PCI_P2PDMA_MAP_BUS_ADDR:
		return HMM_ROUTE_BUS;
	case PCI_P2PDMA_MAP_THRU_HOST_BRIDGE:
		return HMM_ROUTE_HOST_BRIDGE;
	default:
		return HMM_ROUTE_NONE;
	}
}

void hmm_alias_fallback(unsigned long addr, unsigned long nr_pages,
			enum hmm_fallback reason)
{
	this_cpu_add(hmm_p2pdma_stats.fallback[reason], nr_pages);
	trace_hmm_alias_fallback(addr, nr_pages, reason);
}

/*
 * Find the alias of @nr_pages device-private pages, beginning with @page, that
 * are mapped at @addr. Where there is none, and @fault says that the pages are
 * going to be migrated for that, note why.
 *
 * Under rcu_read_lock(), taken before the page table entry was read.
 */
bool hmm_alias_pfn(const struct hmm_range *range, struct hmm_alias_cache *cache,
		   unsigned long addr, struct page *page,
		   unsigned long nr_pages, bool fault, unsigned long *pfn)
{
	struct hmm_window *window = rcu_dereference(page_pgmap(page)->window);
	enum hmm_fallback reason;
	unsigned long offset;
	phys_addr_t phys;

	if (!window) {
		reason = HMM_FALLBACK_NO_WINDOW;
		goto none;
	}

	if (cache->window != window) {
		cache->route = hmm_window_route(window, range->client);
		cache->window = window;
	}

	if (cache->route == HMM_ROUTE_NONE) {
		reason = HMM_FALLBACK_UNREACHABLE;
		goto none;
	}

	if (window->get_alias) {
		reason = HMM_FALLBACK_CALLBACK;
		if (window->get_alias(window, page, nr_pages, &phys) ||
		    !PAGE_ALIGNED(phys))
			goto none;
		offset = PHYS_PFN(phys) - PHYS_PFN(window->phys);
	} else {
		reason = HMM_FALLBACK_OUTSIDE_WINDOW;
		offset = page_to_pfn(page) - window->first_pfn;
	}

	if (offset >= window->nr_pages || nr_pages > window->nr_pages - offset)
		goto none;

	*pfn = PHYS_PFN(window->phys) + offset;
	this_cpu_add(hmm_p2pdma_stats.alias[cache->route], nr_pages);
	trace_hmm_alias(addr, *pfn, nr_pages, cache->route);
	return true;

none:
	if (fault)
		hmm_alias_fallback(addr, nr_pages, reason);
	return false;
}

static ssize_t enabled_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  static_key_enabled(&hmm_p2pdma_key) ?
			  "[always] never" : "always [never]");
}

static ssize_t enabled_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	if (sysfs_streq(buf, "always"))
		static_branch_enable(&hmm_p2pdma_key);
	else if (sysfs_streq(buf, "never"))
		static_branch_disable(&hmm_p2pdma_key);
	else
		return -EINVAL;

	return count;
}

static struct kobj_attribute enabled_attr = __ATTR_RW(enabled);

static struct attribute *hmm_p2pdma_attrs[] = {
	&enabled_attr.attr,
	NULL,
};

static const struct attribute_group hmm_p2pdma_group = {
	.attrs = hmm_p2pdma_attrs,
};

static ssize_t hmm_p2pdma_stat_show(char *buf, size_t offset)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += *(unsigned long *)((void *)per_cpu_ptr(&hmm_p2pdma_stats, cpu) + offset);

	return sysfs_emit(buf, "%lu\n", sum);
}

#define HMM_P2PDMA_STAT_ATTR(_name, _field)				\
static ssize_t _name##_show(struct kobject *kobj,			\
			    struct kobj_attribute *attr, char *buf)	\
{									\
	return hmm_p2pdma_stat_show(buf,				\
			offsetof(struct hmm_p2pdma_stats, _field));	\
}									\
static struct kobj_attribute _name##_attr = __ATTR_RO(_name)

HMM_P2PDMA_STAT_ATTR(alias_cpu, alias[HMM_ROUTE_CPU]);
HMM_P2PDMA_STAT_ATTR(alias_bus, alias[HMM_ROUTE_BUS]);
HMM_P2PDMA_STAT_ATTR(alias_host_bridge, alias[HMM_ROUTE_HOST_BRIDGE]);
HMM_P2PDMA_STAT_ATTR(fallback_no_window, fallback[HMM_FALLBACK_NO_WINDOW]);
HMM_P2PDMA_STAT_ATTR(fallback_outside_window, fallback[HMM_FALLBACK_OUTSIDE_WINDOW]);
HMM_P2PDMA_STAT_ATTR(fallback_callback, fallback[HMM_FALLBACK_CALLBACK]);
HMM_P2PDMA_STAT_ATTR(fallback_unreachable, fallback[HMM_FALLBACK_UNREACHABLE]);
HMM_P2PDMA_STAT_ATTR(fallback_readonly, fallback[HMM_FALLBACK_READONLY]);

static struct attribute *hmm_p2pdma_stat_attrs[] = {
	&alias_cpu_attr.attr,
	&alias_bus_attr.attr,
	&alias_host_bridge_attr.attr,
	&fallback_no_window_attr.attr,
	&fallback_outside_window_attr.attr,
	&fallback_callback_attr.attr,
	&fallback_unreachable_attr.attr,
	&fallback_readonly_attr.attr,
	NULL,
};

static const struct attribute_group hmm_p2pdma_stat_group = {
	.name = "stats",
	.attrs = hmm_p2pdma_stat_attrs,
};

static const struct attribute_group *hmm_p2pdma_groups[] = {
	&hmm_p2pdma_group,
	&hmm_p2pdma_stat_group,
	NULL,
};

static int __init hmm_p2pdma_init(void)
{
	struct kobject *kobj = kobject_create_and_add("hmm_p2pdma", mm_kobj);

	if (!kobj || sysfs_create_groups(kobj, hmm_p2pdma_groups)) {
		pr_err("failed to create the sysfs files\n");
		kobject_put(kobj);
	}

	return 0;
}
subsys_initcall(hmm_p2pdma_init);

static int __init setup_hmm_p2pdma(char *str)
{
	if (str && !strcmp(str, "always"))
		static_branch_enable(&hmm_p2pdma_key);
	else if (str && !strcmp(str, "never"))
		static_branch_disable(&hmm_p2pdma_key);
	else
		pr_warn("hmm_p2pdma= takes 'always' or 'never', ignored\n");

	return 1;
}
__setup("hmm_p2pdma=", setup_hmm_p2pdma);
