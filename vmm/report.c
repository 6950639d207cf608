#include "vmm/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "vmm/base/log.h"

static void report_range(const char *what, uint64_t base, uint64_t size)
{
	if (size)
		log_info("  0x%012" PRIx64 "-0x%012" PRIx64 "  %s", base, base + size - 1, what);
}

static const char *kind_name(enum device_kind kind)
{
	switch (kind) {
	case DEVICE_VIOMMU:
		return "virtio-iommu";
	case DEVICE_DISK:
		return "virtio-blk";
	case DEVICE_NET:
		return "virtio-net";
	case DEVICE_RNG:
		return "virtio-rng";
	case DEVICE_VFIO:
		return "vfio";
	}
	return "?";
}

static void report_device(const struct machine *m, const struct machine_device *d)
{
	char place[64], behind[64] = "untranslated";

	if (d->bus == CONFIG_BUS_PCI)
		snprintf(place, sizeof(place), "pci 00:%02x.%u", d->place, d->fn);
	else
		snprintf(place, sizeof(place), "mmio 0x%" PRIx64 " irq %u", d->base, d->gsi);
	if (d->iommu != CONFIG_NO_IOMMU)
		snprintf(behind, sizeof(behind), "endpoint 0x%x behind %s", d->endpoint,
			 m->config->viommu[d->iommu].name);
	else if (d->kind == DEVICE_VIOMMU)
		behind[0] = '\0';
	log_info("  %-12s %-12s %-26s %s", d->name, kind_name(d->kind), place, behind);
}

static void report_viommu(const struct machine *m, unsigned index)
{
	const char *name = m->config->viommu[index].name;
	const struct iommu_config *config = &m->iommu[index].config;

	log_info("%s: %u-bit addresses, %" PRIu64 " KiB granule, bypass %s", name,
		 config->address_width, config->granule >> 10, config->bypass ? "on" : "off");
	for (unsigned i = 0; i < m->platform.num_pci_ranges; i++) {
		const struct platform_pci_range *range = &m->platform.pci_range[i];

		if (range->iommu == index)
			log_info("%s: PCI endpoints 0x%x-0x%x", name, range->bdf_start,
				 range->bdf_end);
	}
}

void report_machine(const struct machine *m)
{
	if (!log_enabled(LOG_INFO))
		return;
	log_info("memory map:");
	for (unsigned i = 0; i < m->map.ram.count; i++)
		report_range("RAM", m->map.ram.region[i].base.v, m->map.ram.region[i].size);
	report_range("PCI memory, 32-bit", m->map.pci_mem32.base, m->map.pci_mem32.size);
	report_range("PCI ECAM", m->map.ecam.base, m->map.ecam.size);
	report_range("virtio-mmio", m->map.mmio_devices.base, m->map.mmio_devices.size);
	report_range("MSI", m->map.msi.base, m->map.msi.size);
	report_range("PCI memory, 64-bit", m->map.pci_mem64.base, m->map.pci_mem64.size);
	log_info("devices (%u vCPUs):", m->num_vcpus);
	for (unsigned i = 0; i < m->num_devices; i++)
		report_device(m, &m->device[i]);
	for (unsigned i = 0; i < m->config->num_viommus; i++)
		report_viommu(m, i);
}

void report_start(const struct machine *m, uint64_t start_ns)
{
	const struct timespec nap = { .tv_nsec = 100000 };
	uint64_t first;

	if (!log_enabled(LOG_INFO))
		return;
	/* The vCPU thread notes the time itself; it was started just before this call. */
	while ((first = vm_first_run_ns(m->vm)) == 0)
		nanosleep(&nap, NULL);
	log_info("first guest instruction %.1f ms after the start of moat",
		 (double)(first - start_ns) / 1e6);
}

static void report_endpoints(struct iommu *iommu)
{
	struct iommu_endpoint_stats s;

	for (unsigned i = 0; iommu_get_stats(iommu, i, &s); i++)
		log_info("endpoint 0x%x (%s): %" PRIu64 " maps, %" PRIu64 " unmaps, %" PRIu64
			 " live; %" PRIu64 " bytes translated, cache %" PRIu64 " hits %" PRIu64
			 " misses; %" PRIu64 " faults, %" PRIu64 " events dropped",
			 s.endpoint, s.name, s.maps, s.unmaps, s.live_mappings, s.translated_bytes,
			 s.cache_hits, s.cache_misses, s.faults, s.dropped_events);
}

static void report_domains(struct iommu *iommu, const char *name)
{
	struct iommu_domain_stats d;
	struct iommu_memory memory;

	for (unsigned i = 0; iommu_get_domain_stats(iommu, i, &d); i++)
		log_info("domain %" PRIu32 " of %s: %u endpoints%s, %" PRIu64 " maps, %" PRIu64
			 " unmaps, %" PRIu64 " live",
			 d.domain, name, d.endpoints, d.bypass ? ", bypass" : "", d.maps, d.unmaps,
			 d.live_mappings);
	uint64_t gone = iommu_get_gone_domains(iommu, &d);

	log_info("domains of %s that are gone: %" PRIu64 ", with %" PRIu64 " maps, %" PRIu64
		 " unmaps",
		 name, gone, d.maps, d.unmaps);
	iommu_get_memory(iommu, &memory);
	log_info("mappings of %s: at most %" PRIu64 " at a time, for which %" PRIu64
		 " KiB were taken (%.1f bytes each)",
		 name, memory.most_mappings, memory.bytes >> 10,
		 memory.most_mappings ? (double)memory.bytes / (double)memory.most_mappings : 0.0);
}

void report_audit(const struct machine *m)
{
	struct iommu_audit a;

	for (unsigned i = 0; i < m->config->num_viommus; i++) {
		iommu_audit(m->iommu[i].iommu, &a);
		if (a.listeners)
			log_warn("audit of %s: %" PRIu64 " mappings in %u address spaces of the "
				 "host, %" PRIu64 " differences",
				 m->config->viommu[i].name, a.mappings, a.listeners, a.differences);
	}
	for (unsigned i = 0; i < m->num_devices; i++) {
		const struct machine_device *d = &m->device[i];

		if (d->kind != DEVICE_VFIO || d->iommu != CONFIG_NO_IOMMU || d->fn)
			continue;
		struct dma_listener *listener = &d->host->space->listener;

		log_warn("audit of %s: all memory, %" PRIu64 " differences", d->name,
			 listener->ops->audit(listener, NULL, NULL));
	}
}

void report_end(const struct machine *m)
{
	if (!log_enabled(LOG_INFO))
		return;
	report_audit(m);
	for (unsigned i = 0; i < m->config->num_viommus; i++) {
		report_endpoints(m->iommu[i].iommu);
		report_domains(m->iommu[i].iommu, m->config->viommu[i].name);
	}
}
