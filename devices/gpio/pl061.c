/*
 * A PL061 (Arm DDI 0190B). Outside it are buttons, so all lines are low but while
 * one is pressed; what the guest drives as an output goes nowhere.
 *
 * How long is a press? Drivers debounce: they take the interrupt, wait some
 * milliseconds, and look at the line. A pulse of a fixed length would be missed
 * by a guest that is slow, or hasn't loaded its driver yet. So the line stays high
 * until the guest has seen it high, and falls then, which is the release.
 */
#include "devices/gpio/pl061.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "devices/primecell/primecell.h"
#include "vmm/base/types.h"

/* Registers (3.2). DATA is there 256 times: bits 9 to 2 of the address select lines. */
#define REG_DATA_LAST 0x3fc
#define REG_DIR	      0x400
#define REG_IS	      0x404
#define REG_IBE	      0x408
#define REG_IEV	      0x40c
#define REG_IE	      0x410
#define REG_RIS	      0x414
#define REG_MIS	      0x418
#define REG_IC	      0x41c
#define REG_AFSEL     0x420

#define PL061_ID 0x00041061

/* Bit n of each is line n's. */
struct pl061 {
	struct primecell cell; /* its lock protects the rest */
	uint8_t pressed;
	uint8_t data;	/* what the guest drives on its outputs */
	uint8_t dir;	/* 1 = output */
	uint8_t is;	/* 1 = the level interrupts, 0 = edges */
	uint8_t ibe;	/* 1 = both edges */
	uint8_t iev;	/* 1 = high or rising, 0 = low or falling */
	uint8_t ie;	/* 1 = not masked */
	uint8_t afsel;	/* kept; there is no other function */
	uint8_t edges;	/* seen and not yet cleared */
	uint8_t before; /* the wires when edges were looked for last */
};

static uint8_t wires(const struct pl061 *g)
{
	return (uint8_t)((g->pressed & ~g->dir) | (g->data & g->dir));
}

/* Latch the edges of what just changed. */
static void detect_edges(struct pl061 *g)
{
	uint8_t now = wires(g), changed = now ^ g->before;

	/* Of each changed line the edge was rising if it is high now. */
	g->edges |= (uint8_t)(changed & ~g->is & (g->ibe | ~(now ^ g->iev)));
	g->before = now;
}

static uint8_t raw_interrupts(const struct pl061 *g)
{
	return (uint8_t)(g->edges | (g->is & ~(wires(g) ^ g->iev)));
}

static uint32_t read_data(struct pl061 *g, uint8_t mask)
{
	uint8_t value = wires(g) & mask;

	g->pressed &= (uint8_t) ~(value & ~g->dir);
	detect_edges(g);
	return value;
}

static uint32_t pl061_read(struct primecell *cell, unsigned reg)
{
	struct pl061 *g = container_of(cell, struct pl061, cell);

	if (reg <= REG_DATA_LAST)
		return read_data(g, (uint8_t)(reg >> 2));
	switch (reg) {
	case REG_DIR:
		return g->dir;
	case REG_IS:
		return g->is;
	case REG_IBE:
		return g->ibe;
	case REG_IEV:
		return g->iev;
	case REG_IE:
		return g->ie;
	case REG_RIS:
		return raw_interrupts(g);
	case REG_MIS:
		return raw_interrupts(g) & g->ie;
	case REG_AFSEL:
		return g->afsel;
	default:
		return 0;
	}
}

static void write_data(struct pl061 *g, uint8_t mask, uint8_t value)
{
	mask &= g->dir;
	g->data = (uint8_t)((g->data & ~mask) | (value & mask));
}

static void pl061_write(struct primecell *cell, unsigned reg, uint32_t value)
{
	struct pl061 *g = container_of(cell, struct pl061, cell);
	uint8_t byte = (uint8_t)value;

	if (reg <= REG_DATA_LAST)
		write_data(g, (uint8_t)(reg >> 2), byte);
	switch (reg) {
	case REG_DIR:
		g->dir = byte;
		break;
	case REG_IS:
		g->is = byte;
		g->edges &= (uint8_t)~byte;
		break;
	case REG_IBE:
		g->ibe = byte;
		break;
	case REG_IEV:
		g->iev = byte;
		break;
	case REG_IE:
		g->ie = byte;
		break;
	case REG_IC:
		g->edges &= (uint8_t)~byte;
		break;
	case REG_AFSEL:
		g->afsel = byte;
		break;
	default:
		break;
	}
	detect_edges(g);
}

static bool pl061_interrupt(const struct primecell *cell)
{
	const struct pl061 *g = container_of(cell, struct pl061, cell);

	return raw_interrupts(g) & g->ie;
}

static const struct primecell_ops pl061_ops = {
	.name = "PL061",
	.id = PL061_ID,
	.read = pl061_read,
	.write = pl061_write,
	.interrupt = pl061_interrupt,
};

int pl061_create(struct pl061 **ret_gpio, struct bus *bus, uint64_t base, struct irq_line *irq,
		 struct err *err)
{
	struct pl061 *g = calloc(1, sizeof(*g));

	if (!g)
		return err_set(err, ENOMEM, "PL061: out of host memory");

	int rc = primecell_init(&g->cell, &pl061_ops, bus, base, irq, err);

	if (rc < 0) {
		free(g);
		return rc;
	}
	*ret_gpio = g;
	return 0;
}

void pl061_destroy(struct pl061 *gpio)
{
	if (!gpio)
		return;
	primecell_finish(&gpio->cell);
	free(gpio);
}

void pl061_reset(struct pl061 *gpio)
{
	primecell_lock(&gpio->cell);
	gpio->pressed = gpio->data = gpio->dir = gpio->is = gpio->ibe = 0;
	gpio->iev = gpio->ie = gpio->afsel = gpio->edges = gpio->before = 0;
	primecell_unlock(&gpio->cell);
}

void pl061_press(struct pl061 *gpio, unsigned line)
{
	assert(line < PL061_NUM_LINES);
	primecell_lock(&gpio->cell);
	gpio->pressed |= (uint8_t)(1u << line);
	detect_edges(gpio);
	primecell_unlock(&gpio->cell);
}
