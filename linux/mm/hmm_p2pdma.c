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

#include <kunit/visibility.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/dma-map-ops.h>
#include <linux/hmm_p2pdma.h>
#include <linux/hmm_peers.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/maple_tree.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pci-p2pdma.h>
#include <linux/percpu.h>
#include <linux/seq_buf.h>
#include <linux/seq_file.h>
#include <linux/sysfs.h>

#include "hmm_p2pdma.h"

#define CREATE_TRACE_POINTS
#include <trace/events/hmm.h>

DEFINE_STATIC_KEY_TRUE(hmm_p2pdma_key);

/* All windows, by the PFNs of their BARs: alias entries lead back to them. */
static struct maple_tree hmm_windows =
	MTREE_INIT(hmm_windows, MT_FLAGS_USE_RCU);

/* Held to change @hmm_windows, or to keep a window while sleeping. */
static DEFINE_MUTEX(hmm_windows_lock);

/* HMM_ROUTE_NONE and HMM_NO_FALLBACK are not counted */
#define HMM_STAT_ALIAS(route)		(route)
#define HMM_STAT_FALLBACK(reason)	(HMM_NR_ROUTES + (reason))
#define HMM_NR_WINDOW_STATS		HMM_STAT_FALLBACK(HMM_NR_FALLBACKS)
#define HMM_STAT_DMA_MAPPED		HMM_NR_WINDOW_STATS
#define HMM_STAT_DMA_UNMAPPED		(HMM_NR_WINDOW_STATS + 1)
#define HMM_NR_STATS			(HMM_NR_WINDOW_STATS + 2)

/* In all since boot, and those below HMM_NR_WINDOW_STATS for each window. */
struct hmm_p2pdma_stats {
	unsigned long pages[HMM_NR_STATS];
};

static DEFINE_PER_CPU(struct hmm_p2pdma_stats, hmm_p2pdma_stats);

static void hmm_stat_add(struct hmm_window *window, unsigned int stat,
			 unsigned long nr_pages)
{
	this_cpu_add(hmm_p2pdma_stats.pages[stat], nr_pages);
	if (window)
		this_cpu_add(window->stats->pages[stat], nr_pages);
}

/* Aliases of @nr_pages have been mapped for DMA, or such a mapping undone. */
void hmm_alias_account(unsigned long nr_pages, bool mapped)
{
	hmm_stat_add(NULL, mapped ? HMM_STAT_DMA_MAPPED : HMM_STAT_DMA_UNMAPPED,
		     nr_pages);
}

/* Has the exporter made P2PDMA pages for the window? */
static bool hmm_window_has_pages(const struct hmm_window *window)
{
	unsigned long last = PHYS_PFN(window->phys) + window->nr_pages - 1;
	struct dev_pagemap *pgmap = get_dev_pagemap(PHYS_PFN(window->phys));
	bool has_pages;

	if (!pgmap)
		return false;

	has_pages = pgmap->type == MEMORY_DEVICE_PCI_P2PDMA &&
		    PFN_PHYS(last) <= pgmap->range.end;
	put_dev_pagemap(pgmap);
	return has_pages;
}

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
 *	not page aligned, or reaches beyond the provider's BAR.
 * -EBUSY: @pgmap has a window already.
 * -EEXIST: @window overlaps a window of another pagemap.
 * -ENOMEM: Out of memory.
 * -EOPNOTSUPP: The kernel was built without CONFIG_HMM_P2PDMA. As with the
 *	others, the driver can go on: its pages migrate to system memory.
 */
int hmm_window_register(struct dev_pagemap *pgmap, struct hmm_window *window)
{
	unsigned long first = PHYS_PFN(window->phys), last;
	const struct range *bar;
	int ret;

	if (pgmap->type != MEMORY_DEVICE_PRIVATE || !window->provider ||
	    !window->nr_pages || !PAGE_ALIGNED(window->phys))
		return -EINVAL;

	bar = &window->provider->range;
	if (window->phys < bar->start || window->phys > bar->end ||
	    window->nr_pages > (bar->end - window->phys + 1) >> PAGE_SHIFT)
		return -EINVAL;

	if (rcu_access_pointer(pgmap->window))
		return -EBUSY;

	last = first + window->nr_pages - 1;

	window->pgmap = pgmap;
	window->has_pages = hmm_window_has_pages(window);
	window->stats = alloc_percpu(struct hmm_p2pdma_stats);
	if (!window->stats)
		return -ENOMEM;

	mutex_lock(&hmm_windows_lock);
	ret = mtree_insert_range(&hmm_windows, first, last, window, GFP_KERNEL);
	if (!ret)
		rcu_assign_pointer(pgmap->window, window);
	mutex_unlock(&hmm_windows_lock);

	if (ret)
		free_percpu(window->stats);
	return ret;
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

	mutex_lock(&hmm_windows_lock);
	RCU_INIT_POINTER(pgmap->window, NULL);
	mtree_erase(&hmm_windows, PHYS_PFN(window->phys));
	mutex_unlock(&hmm_windows_lock);

	synchronize_rcu();
	free_percpu(window->stats);
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

	if (!window || iosys_map_is_null(&window->map)) {
		iosys_map_clear(map);
		return;
	}

	*map = window->map;
	iosys_map_incr(map, hmm_pfn_to_phys(hmm_pfn) - window->phys);
}
EXPORT_SYMBOL_GPL(hmm_alias_to_iosys_map);

/**
 * hmm_alias_dma_map() - map contiguous aliases for DMA, in one piece
 * @dev: the device of the client that the entries were resolved for
 * @hmm_pfn: the first entry, with HMM_PFN_ALIAS set
 * @size: in bytes. Entries with an order, hmm_pfn_to_map_order(), are contiguous
 *	so far
 * @dir: what @dev does with the memory
 * @type: where to note what hmm_alias_dma_unmap() has to know
 *
 * For importers that keep their own addresses, in pieces larger than a page. Those
 * with a &struct hmm_dma_map use hmm_dma_map_pfn().
 *
 * Context: Any; the lock that makes the entries valid is held, and they are
 * unmapped before they are not valid any more.
 * Return: the address for @dev, to be tested with dma_mapping_error(), which
 * finds one if @hmm_pfn is not a valid alias, @dev does not reach it, or there
 * are no resources to map it.
 */
dma_addr_t hmm_alias_dma_map(struct device *dev, unsigned long hmm_pfn,
			     size_t size, enum dma_data_direction dir,
			     enum pci_p2pdma_map_type *type)
{
	struct p2pdma_provider *provider = hmm_pfn_to_provider(hmm_pfn);
	phys_addr_t phys = hmm_pfn_to_phys(hmm_pfn);
	dma_addr_t addr;

	*type = PCI_P2PDMA_MAP_NOT_SUPPORTED;
	if (!provider)
		return DMA_MAPPING_ERROR;

	*type = pci_p2pdma_map_type(provider, dev);
	switch (*type) {
	case PCI_P2PDMA_MAP_BUS_ADDR:
		addr = pci_p2pdma_bus_addr_map(provider, phys);
		break;
	case PCI_P2PDMA_MAP_THRU_HOST_BRIDGE:
		addr = dma_map_phys(dev, phys, size, dir, DMA_ATTR_MMIO);
		if (dma_mapping_error(dev, addr))
			return DMA_MAPPING_ERROR;
		break;
	default:
		return DMA_MAPPING_ERROR;
	}

	hmm_alias_account(size >> PAGE_SHIFT, true);
	return addr;
}
EXPORT_SYMBOL_GPL(hmm_alias_dma_map);

/**
 * hmm_alias_dma_unmap() - undo hmm_alias_dma_map()
 * @dev: as before
 * @addr: what hmm_alias_dma_map() returned
 * @size: as before
 * @dir: as before
 * @type: what hmm_alias_dma_map() noted
 *
 * Context: Any.
 */
void hmm_alias_dma_unmap(struct device *dev, dma_addr_t addr, size_t size,
			 enum dma_data_direction dir,
			 enum pci_p2pdma_map_type type)
{
	if (type == PCI_P2PDMA_MAP_THRU_HOST_BRIDGE)
		dma_unmap_phys(dev, addr, size, dir, DMA_ATTR_MMIO);
	hmm_alias_account(size >> PAGE_SHIFT, false);
}
EXPORT_SYMBOL_GPL(hmm_alias_dma_unmap);

/*
 * Can a device address all of a window? Its DMA mask may reach all of RAM, and BARs
 * lie above that.
 */
static bool hmm_window_is_addressable(const struct hmm_window *window,
				      struct device *dev, bool bus)
{
	u64 size = PFN_PHYS((u64)window->nr_pages), last;

	if (!bus)
		return dma_can_map_mmio(dev, window->phys, size);

	last = pci_p2pdma_bus_addr_map(window->provider, window->phys) + size - 1;
	return last <= min_not_zero(dma_get_mask(dev), dev->bus_dma_limit);
}

static enum hmm_route hmm_window_route(const struct hmm_window *window,
				       const struct hmm_client *client)
{
	struct device *dev = client->dma_dev;
	bool bus;

	if (!dev)
		return iosys_map_is_null(&window->map) ? HMM_ROUTE_NONE :
							 HMM_ROUTE_CPU;

	/* Its own memory a device does not reach through the fabric */
	if (dev == window->provider->owner)
		return HMM_ROUTE_NONE;

	switch (pci_p2pdma_map_type(window->provider, dev)) {
	case PCI_P2PDMA_MAP_BUS_ADDR:
		bus = true;
		break;
	case PCI_P2PDMA_MAP_THRU_HOST_BRIDGE:
		bus = false;
		break;
	default:
		return HMM_ROUTE_NONE;
	}

	if (!hmm_window_is_addressable(window, dev, bus))
		return HMM_ROUTE_NONE;
	return bus ? HMM_ROUTE_BUS : HMM_ROUTE_HOST_BRIDGE;
}

/* Note why @nr_pages are going to be migrated. Under rcu_read_lock(). */
void hmm_alias_fallback(struct dev_pagemap *pgmap, unsigned long addr,
			unsigned long nr_pages, enum hmm_fallback reason)
{
	hmm_stat_add(rcu_dereference(pgmap->window), HMM_STAT_FALLBACK(reason),
		     nr_pages);
	trace_hmm_alias_fallback(addr, nr_pages, reason);
}

/* Note that @nr_pages are handed out, by what hmm_alias_pfn() has found. */
void hmm_alias_found(struct hmm_alias_cache *cache, unsigned long addr,
		     unsigned long pfn, unsigned long nr_pages)
{
	cache->found += nr_pages;
	trace_hmm_alias(addr, pfn, nr_pages, cache->route);
}

void __hmm_alias_end(struct hmm_alias_cache *cache)
{
	if (cache->found)
		hmm_stat_add(cache->window, HMM_STAT_ALIAS(cache->route),
			     cache->found);
	*cache = (struct hmm_alias_cache) { };
}

/*
 * Note which PFNs a linear window shows, of those that are the pagemap's: they
 * lead to it on their own. Pages that are traced have to come here, each.
 */
static void hmm_alias_remember(struct hmm_alias_cache *cache,
			       const struct hmm_window *window,
			       const struct dev_pagemap *pgmap)
{
	unsigned long first, last;

	if (window->get_alias || pgmap->nr_range != 1 || trace_hmm_alias_enabled())
		return;

	first = max(window->first_pfn, PHYS_PFN(pgmap->range.start));
	last = min(window->first_pfn + window->nr_pages - 1,
		   PHYS_PFN(pgmap->range.end));
	cache->first_pfn = first;
	cache->nr_pages = last - first + 1;
	cache->alias_pfn = PHYS_PFN(window->phys) + first - window->first_pfn;
}

/*
 * Find the alias of @nr_pages pages of @pgmap, beginning with @private_pfn, or
 * why there is none.
 *
 * Under rcu_read_lock(), taken before the page table entry was read. There is no
 * reference on the pages, at which only their exporter may look.
 */
enum hmm_fallback hmm_alias_pfn(const struct hmm_range *range,
				struct hmm_alias_cache *cache,
				struct dev_pagemap *pgmap,
				unsigned long private_pfn,
				unsigned long nr_pages, unsigned long *pfn)
{
	struct hmm_window *window = rcu_dereference(pgmap->window);
	enum hmm_fallback reason;
	unsigned long offset;
	phys_addr_t phys;

	if (!window)
		return HMM_FALLBACK_NO_WINDOW;

	if (cache->window != window) {
		hmm_alias_end(cache);
		cache->route = hmm_window_route(window, range->client);
		cache->window = window;
	}

	if (cache->route == HMM_ROUTE_NONE)
		return HMM_FALLBACK_UNREACHABLE;

	if (range->client->need_pages && !window->has_pages)
		return HMM_FALLBACK_NO_PAGES;

	if (window->get_alias) {
		reason = HMM_FALLBACK_CALLBACK;
		if (window->get_alias(window, pfn_to_page(private_pfn), nr_pages,
				      &phys) || !PAGE_ALIGNED(phys))
			return reason;
		offset = PHYS_PFN(phys) - PHYS_PFN(window->phys);
	} else {
		reason = HMM_FALLBACK_OUTSIDE_WINDOW;
		offset = private_pfn - window->first_pfn;
	}

	if (offset >= window->nr_pages || nr_pages > window->nr_pages - offset)
		return reason;

	*pfn = PHYS_PFN(window->phys) + offset;
	hmm_alias_remember(cache, window, pgmap);
	return HMM_NO_FALLBACK;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_alias_pfn);

/* Of the sysfs file and of the kernel parameter. */
static int hmm_p2pdma_enable(const char *word)
{
	if (sysfs_streq(word, "always"))
		static_branch_enable(&hmm_p2pdma_key);
	else if (sysfs_streq(word, "never"))
		static_branch_disable(&hmm_p2pdma_key);
	else
		return -EINVAL;

	return 0;
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
	return hmm_p2pdma_enable(buf) ?: count;
}

static struct kobj_attribute enabled_attr = __ATTR_RW(enabled);

static struct attribute *hmm_p2pdma_attrs[] = {
	&enabled_attr.attr,
	NULL,
};

static const struct attribute_group hmm_p2pdma_group = {
	.attrs = hmm_p2pdma_attrs,
};

struct hmm_stat_attr {
	struct kobj_attribute attr;
	unsigned int stat;
};

static struct hmm_stat_attr *to_hmm_stat_attr(struct attribute *attr)
{
	return container_of(attr, struct hmm_stat_attr, attr.attr);
}

static unsigned long hmm_stat_sum(struct hmm_p2pdma_stats __percpu *stats,
				  unsigned int stat)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(stats, cpu)->pages[stat]);

	return sum;
}

static ssize_t hmm_stat_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	unsigned int stat = to_hmm_stat_attr(&attr->attr)->stat;

	return sysfs_emit(buf, "%lu\n", hmm_stat_sum(&hmm_p2pdma_stats, stat));
}

#define HMM_STAT_ATTR(_name, _stat)					\
static struct hmm_stat_attr _name##_attr = {				\
	.attr = __ATTR(_name, 0400, hmm_stat_show, NULL),		\
	.stat = _stat,							\
}

HMM_STAT_ATTR(alias_cpu, HMM_STAT_ALIAS(HMM_ROUTE_CPU));
HMM_STAT_ATTR(alias_bus, HMM_STAT_ALIAS(HMM_ROUTE_BUS));
HMM_STAT_ATTR(alias_host_bridge, HMM_STAT_ALIAS(HMM_ROUTE_HOST_BRIDGE));
HMM_STAT_ATTR(fallback_no_window, HMM_STAT_FALLBACK(HMM_FALLBACK_NO_WINDOW));
HMM_STAT_ATTR(fallback_outside_window, HMM_STAT_FALLBACK(HMM_FALLBACK_OUTSIDE_WINDOW));
HMM_STAT_ATTR(fallback_callback, HMM_STAT_FALLBACK(HMM_FALLBACK_CALLBACK));
HMM_STAT_ATTR(fallback_unreachable, HMM_STAT_FALLBACK(HMM_FALLBACK_UNREACHABLE));
HMM_STAT_ATTR(fallback_readonly, HMM_STAT_FALLBACK(HMM_FALLBACK_READONLY));
HMM_STAT_ATTR(fallback_no_pages, HMM_STAT_FALLBACK(HMM_FALLBACK_NO_PAGES));
HMM_STAT_ATTR(dma_mapped, HMM_STAT_DMA_MAPPED);
HMM_STAT_ATTR(dma_unmapped, HMM_STAT_DMA_UNMAPPED);

static struct attribute *hmm_p2pdma_stat_attrs[] = {
	&alias_cpu_attr.attr.attr,
	&alias_bus_attr.attr.attr,
	&alias_host_bridge_attr.attr.attr,
	&fallback_no_window_attr.attr.attr,
	&fallback_outside_window_attr.attr.attr,
	&fallback_callback_attr.attr.attr,
	&fallback_unreachable_attr.attr.attr,
	&fallback_readonly_attr.attr.attr,
	&fallback_no_pages_attr.attr.attr,
	&dma_mapped_attr.attr.attr,
	&dma_unmapped_attr.attr.attr,
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

static int windows_show(struct seq_file *m, void *v)
{
	struct hmm_window *window;
	unsigned long index = 0;
	struct attribute **attr;

	mutex_lock(&hmm_windows_lock);
	mt_for_each(&hmm_windows, window, index, ULONG_MAX) {
		seq_printf(m, "exporter=%s start=%pa size=%llu lookup=%s cpu_map=%d pages=%d",
			   dev_name(window->provider->owner), &window->phys,
			   (u64)window->nr_pages << PAGE_SHIFT,
			   window->get_alias ? "callback" : "linear",
			   !iosys_map_is_null(&window->map), window->has_pages);
		for (attr = hmm_p2pdma_stat_attrs; *attr; attr++) {
			unsigned int stat = to_hmm_stat_attr(*attr)->stat;

			if (stat < HMM_NR_WINDOW_STATS &&
			    *attr != &fallback_no_window_attr.attr.attr)
				seq_printf(m, " %s=%lu", (*attr)->name,
					   hmm_stat_sum(window->stats, stat));
		}
		seq_putc(m, '\n');
	}
	mutex_unlock(&hmm_windows_lock);

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(windows);

static void show_route(struct seq_file *m, const struct hmm_window *window,
		       struct pci_dev *importer)
{
	struct pci_dev *exporter = to_pci_dev(window->provider->owner);
	enum pci_p2pdma_map_type type;
	DECLARE_SEQ_BUF(ports, 256);
	bool bus, redirected;

	type = pci_p2pdma_explain(exporter, importer, &ports);
	bus = type == PCI_P2PDMA_MAP_BUS_ADDR;
	redirected = seq_buf_used(&ports);

	seq_printf(m, "exporter=%s importer=%s ", pci_name(exporter),
		   pci_name(importer));
	if (!bus && type != PCI_P2PDMA_MAP_THRU_HOST_BRIDGE)
		seq_printf(m, "route=none reason=%s",
			   redirected ? "acs_redirect" : "host_bridge");
	else if (!hmm_window_is_addressable(window, &importer->dev, bus))
		seq_puts(m, "route=none reason=dma_mask");
	else if (bus)
		seq_puts(m, "route=bus");
	else if (dev_dma_iommu(&importer->dev))
		seq_puts(m, "route=iommu");
	else
		seq_puts(m, "route=host_bridge");

	if (redirected)
		seq_printf(m, " redirect=%s%s", seq_buf_str(&ports),
			   seq_buf_has_overflowed(&ports) ? "..." : "");
	if (hmm_peers_linked(&importer->dev, window->pgmap))
		seq_puts(m, " link=1");
	seq_putc(m, '\n');
}

static int topology_show(struct seq_file *m, void *v)
{
	struct hmm_window *window;
	unsigned long index = 0;

	mutex_lock(&hmm_windows_lock);
	mt_for_each(&hmm_windows, window, index, ULONG_MAX) {
		struct pci_dev *exporter = to_pci_dev(window->provider->owner);
		struct pci_dev *pdev = NULL;

		seq_printf(m, "exporter=%s importer=cpu route=%s\n",
			   pci_name(exporter),
			   iosys_map_is_null(&window->map) ?
			   "none reason=no_cpu_map" : "cpu");

		for_each_pci_dev(pdev)
			if (pdev != exporter && pdev->driver &&
			    !pci_is_bridge(pdev))
				show_route(m, window, pdev);
	}
	mutex_unlock(&hmm_windows_lock);

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(topology);

static int __init hmm_p2pdma_init(void)
{
	struct kobject *kobj = kobject_create_and_add("hmm_p2pdma", mm_kobj);
	struct dentry *dir = debugfs_create_dir("hmm_p2pdma", NULL);

	debugfs_create_file("windows", 0400, dir, NULL, &windows_fops);
	debugfs_create_file("topology", 0400, dir, NULL, &topology_fops);

	if (!kobj || sysfs_create_groups(kobj, hmm_p2pdma_groups)) {
		pr_err("failed to create the sysfs files\n");
		kobject_put(kobj);
	}

	return 0;
}
subsys_initcall(hmm_p2pdma_init);

static int __init setup_hmm_p2pdma(char *str)
{
	if (hmm_p2pdma_enable(str))
		pr_warn("hmm_p2pdma= takes 'always' or 'never', ignored\n");

	return 1;
}
__setup("hmm_p2pdma=", setup_hmm_p2pdma);
