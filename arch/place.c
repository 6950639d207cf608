#include "arch/common.h"

/*
 * The 64-bit window is as large as a quarter of the address space, at most
 * 256 GiB, aligned to its size: so it starts low (a host IOMMU may see fewer
 * bits than the CPU), and gets smaller when RAM leaves no room.
 */
bool place_mem64(struct platform_range *ret_window, uint64_t ram_end, uint64_t space)
{
	for (uint64_t size = MIN(space / 4, GIB(256)); size >= GIB(1); size /= 2) {
		uint64_t base = ALIGN_UP(ram_end, size);

		if (base <= space - size) {
			ret_window->base = base;
			ret_window->size = size;
			return true;
		}
	}
	return false;
}
