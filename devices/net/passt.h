#ifndef DEVICES_NET_PASST_H
#define DEVICES_NET_PASST_H

/* The passt process behind --net user; internal to devices/net. */

#include <sys/types.h>
#include "vmm/base/err.h"

struct passt {
	int sock;  /* owns; the stream of frames, blocking until the caller changes that */
	int words; /* owns; the reading end of passt's standard error, non-blocking */
	pid_t pid;
};

/* The guest's network, and the station that passt is in it. */
#define PASST_GUEST   "10.0.2.15"
#define PASST_PREFIX  "24"
#define PASST_MTU     "1500"
#define PASST_GATEWAY "10.0.2.2"
#define PASST_DNS     "10.0.2.3"
#define PASST_MAC     "52:55:0a:00:02:02"

/*
 * Start passt with one end of a socket pair and wait until it runs. Returns 0
 * with *@ret filled, -ENOENT when it isn't installed, or -errno, with words in
 * @err. Control path; blocks for the exec.
 */
int passt_start(struct passt *ret, struct err *err);

/*
 * Hang up, which makes passt end by itself, and collect it; one that doesn't end
 * within a second is killed. Leaves no zombie.
 */
void passt_stop(struct passt *passt);

/*
 * When the frame of @len bytes at @frame, from passt, is a DHCP reply that names
 * resolvers, make it name PASST_DNS instead. Any frame is safe.
 */
void passt_fix_dhcp(unsigned char *frame, size_t len);

/* The last line that passt wrote to its standard error, or "" (@size bytes). */
void passt_last_words(struct passt *passt, char *buf, unsigned size);

#endif
