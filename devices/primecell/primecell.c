#include "devices/primecell/primecell.h"

#include <string.h>

/* The last eight registers: four bytes of the peripheral's ID, four of the family's. */
#define REG_ID	     0xfe0
#define PRIMECELL_ID UINT64_C(0xb105f00d)

static uint32_t read_id(const struct primecell *cell, uint64_t reg)
{
	uint64_t ids = PRIMECELL_ID << 32 | cell->ops->id;

	return ids >> ((reg - REG_ID) / 4 * 8) & 0xff;
}

static bool is_register(uint64_t offset, unsigned size)
{
	return offset % 4 == 0 && size <= 4 && offset < PRIMECELL_SIZE;
}

static void accessed(struct primecell *cell)
{
	if (cell->ops->accessed)
		cell->ops->accessed(cell);
}

static uint64_t primecell_read(void *opaque, uint64_t offset, unsigned size)
{
	struct primecell *cell = opaque;

	if (!is_register(offset, size))
		return 0;
	if (offset >= REG_ID)
		return read_id(cell, offset);
	primecell_lock(cell);
	uint32_t value = cell->ops->read(cell, (unsigned)offset);

	primecell_unlock(cell);
	accessed(cell);
	return value;
}

static void primecell_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct primecell *cell = opaque;

	if (!is_register(offset, size) || offset >= REG_ID)
		return;
	primecell_lock(cell);
	cell->ops->write(cell, (unsigned)offset, (uint32_t)value);
	primecell_unlock(cell);
	accessed(cell);
}

static const struct bus_ops primecell_bus_ops = { .read = primecell_read,
						  .write = primecell_write };

int primecell_init(struct primecell *cell, const struct primecell_ops *ops, struct bus *bus,
		   uint64_t base, struct irq_line *irq, struct err *err)
{
	*cell = (struct primecell){ .ops = ops, .bus = bus, .base = base, .irq = irq };
	pthread_mutex_init(&cell->lock, NULL);

	int rc = bus_add(bus, &(struct bus_window){ .base = base,
						    .size = PRIMECELL_SIZE,
						    .ops = &primecell_bus_ops,
						    .opaque = cell,
						    .name = ops->name });

	if (rc < 0) {
		pthread_mutex_destroy(&cell->lock);
		return err_set(err, -rc, "%s: its registers: %s", ops->name, strerror(-rc));
	}
	return 0;
}

void primecell_finish(struct primecell *cell)
{
	bus_remove(cell->bus, cell->base, cell);
	if (cell->level)
		irq_line_set(cell->irq, false);
	pthread_mutex_destroy(&cell->lock);
}

void primecell_lock(struct primecell *cell)
{
	pthread_mutex_lock(&cell->lock);
}

void primecell_unlock(struct primecell *cell)
{
	bool level = cell->ops->interrupt(cell);

	if (level != cell->level) {
		cell->level = level;
		irq_line_set(cell->irq, level);
	}
	pthread_mutex_unlock(&cell->lock);
}
