/*
 * A PL011 (Arm DDI 0183G), as far as software can tell without a clock: a byte
 * that is written has left at once, so the transmit FIFO is always empty, and
 * the baud rate means nothing.
 *
 * Raw interrupts are latched: an event sets them, and ICR or what ends the cause
 * clears them. Transmission has no duration, so each byte that leaves sets TX
 * anew. The receive time-out, 32 bit times of silence, comes with the byte.
 *
 * Output appears whether the guest enabled the port or not: early consoles rely
 * on firmware to have done it, and there is none. The receiver is off until the
 * guest enables it; until then, and while the FIFO is full, the person's bytes
 * wait in the console, which is told when to go on.
 */
#include "devices/serial/pl011.h"

#include <errno.h>
#include <stdlib.h>
#include "devices/primecell/primecell.h"
#include "vmm/base/types.h"

#define FIFO_SIZE 32

/* Registers (3.2). */
#define REG_DR	  0x00
#define REG_RSR	  0x04 /* written: ECR */
#define REG_FR	  0x18
#define REG_ILPR  0x20
#define REG_IBRD  0x24
#define REG_FBRD  0x28
#define REG_LCR_H 0x2c
#define REG_CR	  0x30
#define REG_IFLS  0x34
#define REG_IMSC  0x38
#define REG_RIS	  0x3c
#define REG_MIS	  0x40
#define REG_ICR	  0x44
#define REG_DMACR 0x48

/* A received character's errors, in DR; in RSR they are 8 bits lower. */
#define DR_BE  (1 << 10)
#define DR_OE  (1 << 11)
#define RSR_OE (1 << 3)

#define FR_CTS	(1 << 0)
#define FR_DSR	(1 << 1)
#define FR_DCD	(1 << 2)
#define FR_RXFE (1 << 4)
#define FR_RXFF (1 << 6)
#define FR_TXFE (1 << 7)
#define FR_RI	(1 << 8)

/* What the other end of the cable says: it's there and ready. */
#define FR_CONNECTED (FR_CTS | FR_DSR | FR_DCD)

#define LCR_H_FEN (1 << 4)

#define CR_UARTEN (1 << 0)
#define CR_LBE	  (1 << 7)
#define CR_TXE	  (1 << 8)
#define CR_RXE	  (1 << 9)
#define CR_DTR	  (1 << 10)
#define CR_RTS	  (1 << 11)
#define CR_OUT1	  (1 << 12)
#define CR_OUT2	  (1 << 13)
#define CR_MASK	  0xff87
#define CR_RESET  (CR_TXE | CR_RXE)

#define IFLS_MASK  0x3f
#define IFLS_RESET 0x12 /* both half full */

/* Interrupts, in IMSC, RIS, MIS and ICR. */
#define INT_RI	 (1 << 0)
#define INT_CTS	 (1 << 1)
#define INT_DCD	 (1 << 2)
#define INT_DSR	 (1 << 3)
#define INT_RX	 (1 << 4)
#define INT_TX	 (1 << 5)
#define INT_RT	 (1 << 6)
#define INT_BE	 (1 << 9)
#define INT_OE	 (1 << 10)
#define INT_MASK 0x7ff

/* r1p5: its FIFOs have 32 bytes, and drivers know that from the revision, 3. */
#define PL011_ID 0x00341011

struct pl011 {
	struct primecell cell; /* its lock protects everything below */
	struct chardev *out;   /* borrows; may be NULL */
	void (*room)(void *opaque);
	void *room_opaque;
	bool refused; /* input didn't fit; tell when there is room */
	bool overrun; /* a character was lost since the last read of DR */
	uint32_t ilpr, ibrd, fbrd, lcr_h, cr, ifls, imsc, ris, rsr, dmacr;
	/* The receive FIFO, a ring of characters with their DR_ errors. */
	unsigned head, count;
	uint16_t fifo[FIFO_SIZE];
};

/* With FEN off each FIFO is one holding register. */
static unsigned fifo_depth(const struct pl011 *u)
{
	return u->lcr_h & LCR_H_FEN ? FIFO_SIZE : 1;
}

static unsigned fifo_trigger(const struct pl011 *u)
{
	/* In eighths of the FIFO; the last three encodings are reserved. */
	static const uint8_t eighths[8] = { 1, 2, 4, 6, 7, 7, 7, 7 };

	return u->lcr_h & LCR_H_FEN ? FIFO_SIZE / 8 * eighths[u->ifls >> 3 & 7] : 1;
}

static bool receiving(const struct pl011 *u)
{
	return (u->cr & (CR_UARTEN | CR_RXE | CR_LBE)) == (CR_UARTEN | CR_RXE);
}

static void fifo_push(struct pl011 *u, uint16_t character)
{
	if (u->count >= fifo_depth(u)) {
		u->overrun = true;
		u->rsr |= RSR_OE;
		u->ris |= INT_OE;
		return;
	}
	u->fifo[(u->head + u->count++) % FIFO_SIZE] = character;
	u->ris |= INT_RT;
	if (u->count >= fifo_trigger(u))
		u->ris |= INT_RX;
	if (character & DR_BE)
		u->ris |= INT_BE;
}

static uint32_t fifo_pop(struct pl011 *u)
{
	if (!u->count)
		return 0;
	uint32_t character = u->fifo[u->head];

	u->head = (u->head + 1) % FIFO_SIZE;
	u->count--;
	if (u->count < fifo_trigger(u))
		u->ris &= ~(uint32_t)INT_RX;
	if (!u->count)
		u->ris &= ~(uint32_t)INT_RT;
	u->rsr = (u->rsr & RSR_OE) | character >> 8;
	if (u->overrun)
		character |= DR_OE;
	u->overrun = false;
	return character;
}

static void fifo_clear(struct pl011 *u)
{
	u->head = u->count = 0;
	u->overrun = false;
	u->ris &= ~(uint32_t)(INT_RX | INT_RT);
}

/* The modem's wires as FR shows them; in loopback the four outputs come back as inputs. */
static uint32_t modem_wires(const struct pl011 *u)
{
	if (!(u->cr & CR_LBE))
		return FR_CONNECTED;
	return (u->cr & CR_RTS ? FR_CTS : 0) | (u->cr & CR_DTR ? FR_DSR : 0) |
	       (u->cr & CR_OUT1 ? FR_DCD : 0) | (u->cr & CR_OUT2 ? FR_RI : 0);
}

static void write_cr(struct pl011 *u, uint32_t value)
{
	uint32_t before = modem_wires(u);

	u->cr = value & CR_MASK;

	uint32_t changed = before ^ modem_wires(u);

	u->ris |= (changed & FR_CTS ? INT_CTS : 0) | (changed & FR_DSR ? INT_DSR : 0) |
		  (changed & FR_DCD ? INT_DCD : 0) | (changed & FR_RI ? INT_RI : 0);
}

static void write_lcr_h(struct pl011 *u, uint32_t value)
{
	if ((value ^ u->lcr_h) & LCR_H_FEN)
		fifo_clear(u);
	u->lcr_h = value & 0xff;
}

/* Lets go of the lock while the byte is on its way. */
static void transmit(struct pl011 *u, uint8_t byte)
{
	if (u->cr & CR_LBE) {
		fifo_push(u, byte);
	} else if (u->out) {
		/* A reader that pauses holds up this vCPU, but not who types or resets. */
		primecell_unlock(&u->cell);
		u->out->write(u->out, &byte, 1);
		primecell_lock(&u->cell);
	}
	u->ris |= INT_TX;
}

static uint32_t read_fr(const struct pl011 *u)
{
	uint32_t fr = modem_wires(u) | FR_TXFE;

	if (!u->count)
		fr |= FR_RXFE;
	if (u->count >= fifo_depth(u))
		fr |= FR_RXFF;
	return fr;
}

static uint32_t pl011_read(struct primecell *cell, unsigned reg)
{
	struct pl011 *u = container_of(cell, struct pl011, cell);

	switch (reg) {
	case REG_DR:
		return fifo_pop(u);
	case REG_RSR:
		return u->rsr;
	case REG_FR:
		return read_fr(u);
	case REG_ILPR:
		return u->ilpr;
	case REG_IBRD:
		return u->ibrd;
	case REG_FBRD:
		return u->fbrd;
	case REG_LCR_H:
		return u->lcr_h;
	case REG_CR:
		return u->cr;
	case REG_IFLS:
		return u->ifls;
	case REG_IMSC:
		return u->imsc;
	case REG_RIS:
		return u->ris;
	case REG_MIS:
		return u->ris & u->imsc;
	case REG_DMACR:
		return u->dmacr;
	default:
		return 0;
	}
}

static void pl011_write(struct primecell *cell, unsigned reg, uint32_t value)
{
	struct pl011 *u = container_of(cell, struct pl011, cell);

	switch (reg) {
	case REG_DR:
		transmit(u, (uint8_t)value);
		break;
	case REG_RSR:
		u->rsr = 0;
		break;
	case REG_ILPR:
		u->ilpr = value & 0xff;
		break;
	case REG_IBRD:
		u->ibrd = value & 0xffff;
		break;
	case REG_FBRD:
		u->fbrd = value & 0x3f;
		break;
	case REG_LCR_H:
		write_lcr_h(u, value);
		break;
	case REG_CR:
		write_cr(u, value);
		break;
	case REG_IFLS:
		u->ifls = value & IFLS_MASK;
		break;
	case REG_IMSC:
		u->imsc = value & INT_MASK;
		break;
	case REG_ICR:
		u->ris &= ~value;
		break;
	case REG_DMACR: /* kept, but no DMA controller is connected */
		u->dmacr = value & 7;
		break;
	default:
		break;
	}
}

static bool pl011_interrupt(const struct primecell *cell)
{
	const struct pl011 *u = container_of(cell, struct pl011, cell);

	return u->ris & u->imsc;
}

/* Tell the console when input that it was refused would fit now. */
static void pl011_accessed(struct primecell *cell)
{
	struct pl011 *u = container_of(cell, struct pl011, cell);
	void (*room)(void *opaque) = NULL;
	void *opaque = NULL;

	primecell_lock(cell);
	if (u->refused && !u->count && receiving(u)) {
		u->refused = false;
		room = u->room;
		opaque = u->room_opaque;
	}
	primecell_unlock(cell);
	if (room)
		room(opaque);
}

static const struct primecell_ops pl011_ops = {
	.name = "PL011",
	.id = PL011_ID,
	.read = pl011_read,
	.write = pl011_write,
	.interrupt = pl011_interrupt,
	.accessed = pl011_accessed,
};

static void reset_locked(struct pl011 *u)
{
	u->ilpr = u->ibrd = u->fbrd = u->lcr_h = u->dmacr = 0;
	u->imsc = u->ris = u->rsr = 0;
	u->cr = CR_RESET;
	u->ifls = IFLS_RESET;
	fifo_clear(u);
}

int pl011_create(struct pl011 **ret_uart, struct bus *bus, uint64_t base, struct irq_line *irq,
		 struct chardev *out, struct err *err)
{
	struct pl011 *u = calloc(1, sizeof(*u));

	if (!u)
		return err_set(err, ENOMEM, "PL011: out of host memory");
	u->out = out;
	reset_locked(u);

	int rc = primecell_init(&u->cell, &pl011_ops, bus, base, irq, err);

	if (rc < 0) {
		free(u);
		return rc;
	}
	*ret_uart = u;
	return 0;
}

void pl011_destroy(struct pl011 *uart)
{
	if (!uart)
		return;
	primecell_finish(&uart->cell);
	free(uart);
}

void pl011_reset(struct pl011 *uart)
{
	primecell_lock(&uart->cell);
	reset_locked(uart);
	primecell_unlock(&uart->cell);
}

size_t pl011_input(struct pl011 *uart, const uint8_t *bytes, size_t len)
{
	size_t taken = 0;

	primecell_lock(&uart->cell);
	if (receiving(uart))
		taken = MIN(len, (size_t)(fifo_depth(uart) - uart->count));
	for (size_t i = 0; i < taken; i++)
		fifo_push(uart, bytes[i]);
	uart->refused = taken < len;
	primecell_unlock(&uart->cell);
	return taken;
}

void pl011_break(struct pl011 *uart)
{
	primecell_lock(&uart->cell);
	if (receiving(uart))
		fifo_push(uart, DR_BE);
	primecell_unlock(&uart->cell);
}

void pl011_on_room(struct pl011 *uart, void (*fn)(void *opaque), void *opaque)
{
	primecell_lock(&uart->cell);
	uart->room = fn;
	uart->room_opaque = opaque;
	primecell_unlock(&uart->cell);
}
