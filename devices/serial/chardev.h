#ifndef DEVICES_SERIAL_CHARDEV_H
#define DEVICES_SERIAL_CHARDEV_H

/* Where a serial port's bytes go: a vtable that vmm/console.c implements. */

#include <stddef.h>
#include <stdint.h>

struct chardev {
	/* The guest printed @len bytes. vCPU thread, the port's lock held; may block briefly. */
	void (*write)(struct chardev *chardev, const uint8_t *bytes, size_t len);
};

#endif
