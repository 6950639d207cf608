#ifndef DEVICES_SERIAL_CHARDEV_H
#define DEVICES_SERIAL_CHARDEV_H

/* Where a serial port's bytes go: a vtable that vmm/console.c implements. */

#include <stddef.h>
#include <stdint.h>

struct chardev {
	/*
	 * The guest printed @len bytes. vCPU thread, no lock held: it may block until
	 * somebody reads, and two vCPUs may be in it at a time.
	 */
	void (*write)(struct chardev *chardev, const uint8_t *bytes, size_t len);
};

#endif
