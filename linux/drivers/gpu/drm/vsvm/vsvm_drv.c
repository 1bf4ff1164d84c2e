// SPDX-License-Identifier: GPL-2.0
/*
 * vsvm, a virtual GPU with shared virtual memory.
 *
 * The device is QEMU's ivshmem-plain: memory behind BAR 2, and nothing else.
 * This driver uses that memory as the private VRAM of a GPU. The CPU does the
 * work of the GPU's engines. Memory is managed as in real drivers, with
 * drm_gpusvm (the GPU's view of a process) and drm_pagemap (device-private
 * pages and migration).
 *
 * - vsvm_drv.c: probe and removal, open files
 * - vsvm_vram.c: the exporter: VRAM, its pages, its window, migration
 * - vsvm_link.c: private links between GPUs
 * - vsvm_gate.c: accesses to VRAM wait for the end of a reset
 * - vsvm_svm.c: GPU page faults, and the operations that a process requests
 */
#include <linux/capability.h>
#include <linux/dma-mapping.h>
#include <linux/hmm_p2pdma.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pm.h>
#include <linux/sizes.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_managed.h>
#include <drm/drm_print.h>
#include <uapi/drm/vsvm_drm.h>

#include "vsvm.h"

static int vsvm_info_ioctl(struct drm_device *drm, void *data,
			   struct drm_file *file)
{
	struct vsvm_device *vdev = to_vsvm(drm);
	struct drm_vsvm_info *args = data;

	args->vram_size = vdev->vram_size;
	args->window_size = vdev->window_size;
	return 0;
}

static int vsvm_counters_ioctl(struct drm_device *drm, void *data,
			       struct drm_file *file)
{
	struct vsvm_device *vdev = to_vsvm(drm);
	struct drm_vsvm_counters *args = data;

	/* The counters reveal the memory use of all processes, to the page */
	if (!perfmon_capable())
		return -EPERM;

	args->pages_to_vram = atomic64_read(&vdev->pages_to_vram);
	args->pages_to_ram = atomic64_read(&vdev->pages_to_ram);
	args->pages_to_peers = atomic64_read(&vdev->pages_to_peers);
	args->vram_free = vsvm_vram_free(vdev);
	return 0;
}

static const struct drm_ioctl_desc vsvm_ioctls[] = {
	DRM_IOCTL_DEF_DRV(VSVM_INFO, vsvm_info_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(VSVM_PREFETCH, vsvm_prefetch_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(VSVM_OP, vsvm_op_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(VSVM_RESIDENCY, vsvm_residency_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(VSVM_COUNTERS, vsvm_counters_ioctl, DRM_RENDER_ALLOW),
};

static int vsvm_open(struct drm_device *drm, struct drm_file *file)
{
	struct vsvm_device *vdev = to_vsvm(drm);
	struct vsvm_file *vfile;
	int err;

	vfile = kzalloc_obj(*vfile, GFP_KERNEL_ACCOUNT);
	if (!vfile)
		return -ENOMEM;

	vfile->vdev = vdev;
	mutex_init(&vfile->lock);
	spin_lock_init(&vfile->ranges_lock);
	INIT_LIST_HEAD(&vfile->ranges);
	INIT_LIST_HEAD(&vfile->unmapped);
	INIT_LIST_HEAD(&vfile->idle);

	err = vsvm_pagemap_get(vdev);
	if (err)
		goto err_free;

	err = vsvm_svm_init(vfile);
	if (err)
		goto err_put;

	mutex_lock(&vdev->files_lock);
	list_add(&vfile->link, &vdev->files);
	mutex_unlock(&vdev->files_lock);

	file->driver_priv = vfile;
	return 0;

err_put:
	drm_pagemap_put(&vdev->dpagemap);
err_free:
	mutex_destroy(&vfile->lock);
	kfree(vfile);
	return err;
}

static void vsvm_postclose(struct drm_device *drm, struct drm_file *file)
{
	struct vsvm_device *vdev = to_vsvm(drm);
	struct vsvm_file *vfile = file->driver_priv;

	vsvm_svm_fini(vfile);

	/* vsvm_remove() must find the file as long as it has mappings */
	mutex_lock(&vdev->files_lock);
	list_del(&vfile->link);
	mutex_unlock(&vdev->files_lock);

	drm_pagemap_put(&vdev->dpagemap);
	mutex_destroy(&vfile->lock);
	kfree(vfile);
}

static const struct file_operations vsvm_fops = {
	.owner		= THIS_MODULE,
	.open		= drm_open,
	.release	= drm_release,
	.unlocked_ioctl	= drm_ioctl,
	.compat_ioctl	= drm_compat_ioctl,
	.poll		= drm_poll,
	.read		= drm_read,
	.llseek		= noop_llseek,
	.fop_flags	= FOP_UNSIGNED_OFFSET,
};

static const struct drm_driver vsvm_driver = {
	.driver_features	= DRIVER_RENDER,
	.open			= vsvm_open,
	.postclose		= vsvm_postclose,
	.ioctls			= vsvm_ioctls,
	.num_ioctls		= ARRAY_SIZE(vsvm_ioctls),
	.fops			= &vsvm_fops,
	.name			= "vsvm",
	.desc			= "Virtual GPU with shared virtual memory",
	.major			= 1,
	.minor			= 0,
};

/*
 * No ioctl starts after drm_dev_unplug(). An ioctl that waits for a page fault
 * finds its file revoked when the fault is over. Processes keep their files and
 * their data: VRAM migrates back to system memory, which also invalidates the
 * entries of importers. If it cannot migrate, for example because the device
 * has been pulled, the data is lost, and a process that touches it gets SIGBUS.
 * Devres releases the BAR last.
 */
static void vsvm_stop(struct vsvm_device *vdev)
{
	struct vsvm_file *vfile;
	int err = -EIO;

	vsvm_vram_close(vdev);

	mutex_lock(&vdev->files_lock);
	list_for_each_entry(vfile, &vdev->files, link)
		vsvm_svm_revoke(vfile);
	mutex_unlock(&vdev->files_lock);

	if (vsvm_vram_is_there(vdev))
		err = vsvm_vram_evict(vdev, true);
	if (err) {
		drm_warn(&vdev->drm, "memory of processes is lost (%pe)\n",
			 ERR_PTR(err));
		vsvm_vram_lose(vdev);
	}
	hmm_window_revoke(&vdev->pgmap);
	vsvm_link_remove(vdev);
	vsvm_vram_scrub(vdev);
}

static int vsvm_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vsvm_device *vdev;
	int err;

	if (!(pci_resource_flags(pdev, VSVM_BAR) & IORESOURCE_MEM) ||
	    !IS_ALIGNED(pci_resource_len(pdev, VSVM_BAR), SZ_2M))
		return -ENODEV;

	vdev = devm_drm_dev_alloc(&pdev->dev, &vsvm_driver, struct vsvm_device,
				  drm);
	if (IS_ERR(vdev))
		return PTR_ERR(vdev);

	err = drmm_mutex_init(&vdev->drm, &vdev->files_lock);
	if (err)
		return err;

	INIT_LIST_HEAD(&vdev->files);
	vdev->pdev = pdev;
	vdev->vram_size = pci_resource_len(pdev, VSVM_BAR);
	pci_set_drvdata(pdev, vdev);

	err = pcim_enable_device(pdev);
	if (err)
		return err;
	pci_set_master(pdev);

	err = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (err)
		return err;

	err = pcim_request_region(pdev, VSVM_BAR, "vsvm");
	if (err)
		return err;

	vdev->vram = devm_memremap(&pdev->dev,
				   pci_resource_start(pdev, VSVM_BAR),
				   vdev->vram_size, MEMREMAP_WC);
	if (IS_ERR(vdev->vram))
		return PTR_ERR(vdev->vram);

	err = vsvm_link_init(vdev);
	if (err)
		return err;

	err = vsvm_vram_init(vdev);
	if (err)
		return err;

	err = vsvm_link_add(vdev);
	if (err)
		return err;

	/* If this fails, a process may have used the device already */
	err = drm_dev_register(&vdev->drm, 0);
	if (err)
		vsvm_stop(vdev);

	return err;
}

static void vsvm_remove(struct pci_dev *pdev)
{
	struct vsvm_device *vdev = pci_get_drvdata(pdev);

	drm_dev_unplug(&vdev->drm);
	vsvm_stop(vdev);
}

/*
 * VRAM may lose its contents during sleep. Processes are frozen, so none of
 * them can migrate memory to VRAM again. Kernel threads are not frozen, so
 * revoke the window first.
 */
static int vsvm_suspend(struct device *dev)
{
	struct vsvm_device *vdev = dev_get_drvdata(dev);
	int err;

	hmm_window_revoke(&vdev->pgmap);
	err = vsvm_vram_evict(vdev, false);
	if (err)
		hmm_window_restore(&vdev->pgmap);
	return err;
}

static int vsvm_resume(struct device *dev)
{
	struct vsvm_device *vdev = dev_get_drvdata(dev);

	if (vsvm_vram_is_there(vdev))
		hmm_window_restore(&vdev->pgmap);
	return 0;
}

static DEFINE_SIMPLE_DEV_PM_OPS(vsvm_pm_ops, vsvm_suspend, vsvm_resume);

/*
 * The BAR does not answer during a reset, but VRAM keeps its contents. Importers
 * get no aliases, and engines and copies wait until the reset is over.
 */
static void vsvm_reset_prepare(struct pci_dev *pdev)
{
	struct vsvm_device *vdev = pci_get_drvdata(pdev);

	hmm_window_revoke(&vdev->pgmap);
	vsvm_gate_close(&vsvm_engines);
	vsvm_gate_close(&vdev->copies);
}

static void vsvm_reset_done(struct pci_dev *pdev)
{
	struct vsvm_device *vdev = pci_get_drvdata(pdev);

	vsvm_gate_open(&vdev->copies);
	vsvm_gate_open(&vsvm_engines);
	if (vsvm_vram_is_there(vdev))
		hmm_window_restore(&vdev->pgmap);
}

static const struct pci_error_handlers vsvm_err_handlers = {
	.reset_prepare	= vsvm_reset_prepare,
	.reset_done	= vsvm_reset_done,
};

/*
 * There is no ID table, and no device causes the module to be loaded: the
 * memory behind the BAR of an ivshmem device may be shared with other users, or
 * have any other purpose. The administrator chooses the devices by
 * driver_override or new_id in sysfs, or all ivshmem devices of the machine by
 * this parameter.
 */
static bool all_ivshmem;
module_param(all_ivshmem, bool, 0444);
MODULE_PARM_DESC(all_ivshmem, "drive all ivshmem-plain devices of QEMU (default: those that driver_override or new_id says)");

static struct pci_driver vsvm_pci_driver = {
	.name		= "vsvm",
	.id_table	= NULL,
	.probe		= vsvm_probe,
	.remove		= vsvm_remove,
	.err_handler	= &vsvm_err_handlers,
	.driver.pm	= pm_sleep_ptr(&vsvm_pm_ops),
};

static const struct pci_device_id vsvm_all_ivshmem[] = {
	{ PCI_DEVICE_SUB(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1110,
			 PCI_SUBVENDOR_ID_REDHAT_QUMRANET, PCI_SUBDEVICE_ID_QEMU) },
	{ }
};

static int __init vsvm_init(void)
{
	if (all_ivshmem)
		vsvm_pci_driver.id_table = vsvm_all_ivshmem;
	return pci_register_driver(&vsvm_pci_driver);
}
module_init(vsvm_init);

static void __exit vsvm_exit(void)
{
	pci_unregister_driver(&vsvm_pci_driver);
}
module_exit(vsvm_exit);

MODULE_DESCRIPTION("Virtual GPU with shared virtual memory");
MODULE_LICENSE("GPL");
