/*
 * A 16550A (National Semiconductor PC16550D, June 1995), as far as software can
 * tell without a clock: a byte that is written has left at once, so THRE and
 * TEMT are always set, and the divisor means nothing.
 *
 * The interrupt is a function of the state (`uart_source`), computed again after
 * each change under the port's lock. The only state of its own is `thre`: the
 * transmitter asks when THRE becomes true or IER starts to allow it, and is
 * satisfied by the read of IIR that reports it, although THRE stays true.
 *
 * Bytes that the person types are never lost here: uart16550_input takes what
 * fits, and when the guest has read the FIFO empty the console is told to go on.
 */
#include "devices/serial/uart16550.h"

#include <errno.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define UART_NUM_REGS  8
#define UART_FIFO_SIZE 16
#define UART_IER_MASK  0x0f
#define UART_MCR_MASK  0x1f
#define UART_IIR_FIFO  0xc0 /* the FIFOs are on */

/* What the other end of the cable says: it's there and ready. */
#define MSR_CONNECTED (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

struct uart16550 {
	struct bus *bus; /* borrows */
	uint64_t base;
	struct irq_line *irq; /* borrows */
	struct chardev *out;  /* borrows; may be NULL */

	pthread_mutex_t lock; /* protects everything below */
	void (*room)(void *opaque);
	void *room_opaque;
	bool refused; /* input didn't fit; tell when there is room */
	bool level;   /* of the interrupt wire */
	bool thre;    /* the transmitter's interrupt is pending */
	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t msr_delta; /* UART_MSR_ANY_DELTA bits */
	uint8_t lsr_error; /* OE and the BI of the oldest byte, until LSR is read */
	/* The receive FIFO, a ring; `broken` are the bytes that came as a break. */
	unsigned head, count;
	uint8_t fifo[UART_FIFO_SIZE];
	bool broken[UART_FIFO_SIZE];
};

static bool fifo_enabled(const struct uart16550 *u)
{
	return u->fcr & UART_FCR_ENABLE_FIFO;
}

/* Without FIFO mode there is one holding register. */
static unsigned fifo_room(const struct uart16550 *u)
{
	return (fifo_enabled(u) ? UART_FIFO_SIZE : 1) - u->count;
}

static unsigned fifo_trigger(const struct uart16550 *u)
{
	static const uint8_t level[4] = { 1, 4, 8, 14 };

	return fifo_enabled(u) ? level[u->fcr >> 6] : 1;
}

/* BI is shown when its byte is the next one to be read. */
static void fifo_show_head(struct uart16550 *u)
{
	if (u->count && u->broken[u->head]) {
		u->lsr_error |= UART_LSR_BI;
		u->broken[u->head] = false;
	}
}

static void fifo_push(struct uart16550 *u, uint8_t byte, bool broken)
{
	unsigned at = (u->head + u->count) % UART_FIFO_SIZE;

	if (fifo_room(u) == 0) {
		u->lsr_error |= UART_LSR_OE;
		return;
	}
	u->fifo[at] = byte;
	u->broken[at] = broken;
	u->count++;
	fifo_show_head(u);
}

static uint8_t fifo_pop(struct uart16550 *u)
{
	if (!u->count)
		return 0;
	uint8_t byte = u->fifo[u->head];

	u->head = (u->head + 1) % UART_FIFO_SIZE;
	u->count--;
	fifo_show_head(u);
	return byte;
}

static void fifo_clear(struct uart16550 *u)
{
	u->head = u->count = 0;
	u->lsr_error &= (uint8_t)~UART_LSR_BI;
}

/* The interrupt of the highest priority, as IIR encodes it (table 5 of the data sheet). */
static uint8_t uart_source(const struct uart16550 *u)
{
	if ((u->ier & UART_IER_RLSI) && u->lsr_error)
		return UART_IIR_RLSI;
	/* There is no clock to wait four characters for: the time-out comes at once. */
	if ((u->ier & UART_IER_RDI) && u->count)
		return u->count >= fifo_trigger(u) ? UART_IIR_RDI : UART_IIR_RX_TIMEOUT;
	if ((u->ier & UART_IER_THRI) && u->thre)
		return UART_IIR_THRI;
	if ((u->ier & UART_IER_MSI) && u->msr_delta)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

static void uart_update_irq(struct uart16550 *u)
{
	bool level = uart_source(u) != UART_IIR_NO_INT;

	if (level != u->level) {
		u->level = level;
		irq_line_set(u->irq, level);
	}
}

/* The modem's wires; in loopback the four outputs come back as the four inputs. */
static uint8_t uart_msr(const struct uart16550 *u)
{
	uint8_t msr = 0;

	if (!(u->mcr & UART_MCR_LOOP))
		return MSR_CONNECTED;
	msr |= u->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0;
	msr |= u->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0;
	msr |= u->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0;
	msr |= u->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0;
	return msr;
}

static void uart_write_mcr(struct uart16550 *u, uint8_t value)
{
	uint8_t before = uart_msr(u);

	u->mcr = value & UART_MCR_MASK;

	uint8_t after = uart_msr(u);
	uint8_t changed = before ^ after;

	/* The delta bits are the wires' bits four places down; RI counts only when it falls. */
	if (after & UART_MSR_RI)
		changed &= (uint8_t)~UART_MSR_RI;
	u->msr_delta |= changed >> 4;
}

static void uart_write_fcr(struct uart16550 *u, uint8_t value)
{
	bool enable = value & UART_FCR_ENABLE_FIFO;

	if (enable != fifo_enabled(u) || (value & UART_FCR_CLEAR_RCVR))
		fifo_clear(u);
	u->fcr = enable ? value & (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK) : 0;
}

static void uart_write_ier(struct uart16550 *u, uint8_t value)
{
	/* Allowing the transmitter's interrupt while THRE is true raises it: drivers start so. */
	if (value & ~u->ier & UART_IER_THRI)
		u->thre = true;
	u->ier = value & UART_IER_MASK;
}

/* Lets go of the lock while the byte is on its way. */
static void uart_transmit(struct uart16550 *u, uint8_t byte)
{
	if (u->mcr & UART_MCR_LOOP) {
		fifo_push(u, byte, false);
	} else if (u->out) {
		/* A reader that pauses holds up this vCPU, but not who types or resets. */
		pthread_mutex_unlock(&u->lock);
		u->out->write(u->out, &byte, 1);
		pthread_mutex_lock(&u->lock);
	}
	u->thre = true;
}

static void uart_write_locked(struct uart16550 *u, unsigned reg, uint8_t value)
{
	bool dlab = u->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (dlab)
			u->dll = value;
		else
			uart_transmit(u, value);
		break;
	case UART_IER:
		if (dlab)
			u->dlm = value;
		else
			uart_write_ier(u, value);
		break;
	case UART_FCR:
		uart_write_fcr(u, value);
		break;
	case UART_LCR:
		u->lcr = value;
		break;
	case UART_MCR:
		uart_write_mcr(u, value);
		break;
	case UART_SCR:
		u->scr = value;
		break;
	default: /* LSR and MSR are read-only. */
		break;
	}
}

static uint8_t uart_read_iir(struct uart16550 *u)
{
	uint8_t source = uart_source(u);

	if (source == UART_IIR_THRI)
		u->thre = false;
	return source | (fifo_enabled(u) ? UART_IIR_FIFO : 0);
}

static uint8_t uart_read_lsr(struct uart16550 *u)
{
	uint8_t lsr = UART_LSR_THRE | UART_LSR_TEMT | u->lsr_error;

	if (u->count)
		lsr |= UART_LSR_DR;
	if (fifo_enabled(u) && (u->lsr_error & UART_LSR_BI))
		lsr |= UART_LSR_FIFOE;
	for (unsigned i = 0; i < u->count && fifo_enabled(u); i++) {
		if (u->broken[(u->head + i) % UART_FIFO_SIZE])
			lsr |= UART_LSR_FIFOE;
	}
	u->lsr_error = 0;
	return lsr;
}

static uint8_t uart_read_msr(struct uart16550 *u)
{
	uint8_t msr = uart_msr(u) | u->msr_delta;

	u->msr_delta = 0;
	return msr;
}

static uint8_t uart_read_locked(struct uart16550 *u, unsigned reg)
{
	bool dlab = u->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_RX:
		return dlab ? u->dll : fifo_pop(u);
	case UART_IER:
		return dlab ? u->dlm : u->ier;
	case UART_IIR:
		return uart_read_iir(u);
	case UART_LCR:
		return u->lcr;
	case UART_MCR:
		return u->mcr;
	case UART_LSR:
		return uart_read_lsr(u);
	case UART_MSR:
		return uart_read_msr(u);
	default:
		return u->scr;
	}
}

/* Unlock, and then tell the console when input that it was refused would fit now. */
static void uart_unlock(struct uart16550 *u)
{
	void (*room)(void *opaque) = NULL;
	void *opaque = u->room_opaque;

	uart_update_irq(u);
	if (u->refused && !u->count && !(u->mcr & UART_MCR_LOOP)) {
		u->refused = false;
		room = u->room;
	}
	pthread_mutex_unlock(&u->lock);
	if (room)
		room(opaque);
}

/* The registers are bytes; what isn't, reads as all ones and writes nothing. */
static uint64_t uart_bus_read(void *opaque, uint64_t offset, unsigned size)
{
	struct uart16550 *u = opaque;

	if (size != 1 || offset >= UART_NUM_REGS)
		return UINT64_MAX;
	pthread_mutex_lock(&u->lock);
	uint8_t value = uart_read_locked(u, (unsigned)offset);

	uart_unlock(u);
	return value;
}

static void uart_bus_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct uart16550 *u = opaque;

	if (size != 1 || offset >= UART_NUM_REGS)
		return;
	pthread_mutex_lock(&u->lock);
	uart_write_locked(u, (unsigned)offset, (uint8_t)value);
	uart_unlock(u);
}

static const struct bus_ops uart_bus_ops = { .read = uart_bus_read, .write = uart_bus_write };

int uart16550_create(struct uart16550 **ret_uart, struct bus *bus, uint64_t base,
		     struct irq_line *irq, struct chardev *out, struct err *err)
{
	struct uart16550 *u = calloc(1, sizeof(*u));

	if (!u)
		return err_set(err, ENOMEM, "serial port: out of host memory");
	u->bus = bus;
	u->base = base;
	u->irq = irq;
	u->out = out;
	pthread_mutex_init(&u->lock, NULL);

	int rc = bus_add(bus, &(struct bus_window){ .base = base,
						    .size = UART_NUM_REGS,
						    .ops = &uart_bus_ops,
						    .opaque = u,
						    .name = "16550A" });

	if (rc < 0) {
		pthread_mutex_destroy(&u->lock);
		free(u);
		return err_set(err, -rc, "serial port: its registers: %s", strerror(-rc));
	}
	*ret_uart = u;
	return 0;
}

void uart16550_destroy(struct uart16550 *uart)
{
	if (!uart)
		return;
	uart16550_on_room(uart, NULL, NULL);
	uart16550_reset(uart);
	bus_remove(uart->bus, uart->base, uart);
	pthread_mutex_destroy(&uart->lock);
	free(uart);
}

void uart16550_reset(struct uart16550 *uart)
{
	pthread_mutex_lock(&uart->lock);
	uart->ier = uart->fcr = uart->lcr = uart->mcr = uart->scr = 0;
	uart->dll = uart->dlm = 0;
	uart->msr_delta = uart->lsr_error = 0;
	uart->thre = false;
	fifo_clear(uart);
	uart_unlock(uart);
}

size_t uart16550_input(struct uart16550 *uart, const uint8_t *bytes, size_t len)
{
	size_t taken = 0;

	pthread_mutex_lock(&uart->lock);
	/* In loopback the receiver isn't connected to the wire. */
	if (!(uart->mcr & UART_MCR_LOOP))
		taken = MIN(len, (size_t)fifo_room(uart));
	for (size_t i = 0; i < taken; i++)
		fifo_push(uart, bytes[i], false);
	uart->refused = taken < len;
	uart_update_irq(uart);
	pthread_mutex_unlock(&uart->lock);
	return taken;
}

void uart16550_break(struct uart16550 *uart)
{
	pthread_mutex_lock(&uart->lock);
	if (!(uart->mcr & UART_MCR_LOOP))
		fifo_push(uart, 0, true);
	uart_update_irq(uart);
	pthread_mutex_unlock(&uart->lock);
}

void uart16550_on_room(struct uart16550 *uart, void (*fn)(void *opaque), void *opaque)
{
	pthread_mutex_lock(&uart->lock);
	uart->room = fn;
	uart->room_opaque = opaque;
	pthread_mutex_unlock(&uart->lock);
}
