/*
 * memory_block.c - a block made of memory, for tests: see memory_block.h.
 *
 * A FLUSH makes stable what was there when it was submitted, and no more: its flight carries a
 * copy.
 */
#include "support/memory_block.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

struct flight {
	struct io *io;
	int error;
	bool executed;
	uint64_t checksum; /* a WRITE: of its data, when it was submitted */
	/* a FLUSH: content and written, when it was submitted */
	uint8_t *content;
	uint64_t *written;
};

static struct memory_block *memory_of(struct block *block)
{
	return (struct memory_block *)block; /* the first member */
}

static uint64_t memory_blocks(const struct memory_block *memory)
{
	return memory->block.size / memory->block.limits.block_size;
}

static void flight_free(void *data)
{
	struct flight *flight = data;
	g_free(flight->content);
	g_free(flight->written);
	g_free(flight);
}

/* A write of a session that is gone. */
struct ghost {
	struct io io;
	struct iovec iov;
	uint8_t *data;
};

static void ghost_free(void *data)
{
	struct ghost *ghost = data;
	g_free(ghost->data);
	g_free(ghost);
}

/* ---- rules ---- */

static bool op_changes(enum io_op op)
{
	return op == IO_WRITE || op == IO_ZERO || op == IO_DISCARD;
}

static void memory_check_iovecs(const struct io *io)
{
	uint64_t sum = 0;

	for (int i = 0; i < io->niov; i++) {
		cr_assert(io->iov[i].iov_len > 0, "%s with an empty iovec", io_op_name(io->op));
		sum += io->iov[i].iov_len;
	}
	if (io->op == IO_READ || io->op == IO_WRITE)
		cr_assert(sum == io->length, "%s of %lu bytes has iovecs of %lu",
		    io_op_name(io->op), (unsigned long)io->length, (unsigned long)sum);
	else
		cr_assert(io->niov == 0, "%s with data", io_op_name(io->op));
}

static void memory_check(const struct memory_block *memory, const struct io *io)
{
	uint32_t block_size = memory->block.limits.block_size;
	uint64_t size = memory->block.size;
	const char *name = io_op_name(io->op);

	cr_assert(io->done, "%s without done()", name);
	cr_assert(!(io->flags & ~(uint32_t)IO_FUA), "%s with unknown flags", name);
	cr_assert(!io->flags || io->op == IO_WRITE || io->op == IO_ZERO, "%s with FUA", name);
	memory_check_iovecs(io);
	if (io->op == IO_FLUSH) {
		cr_assert(io->offset == 0 && io->length == 0, "FLUSH with a range");
		return;
	}
	cr_assert(io->length > 0, "%s of nothing", name);
	cr_assert(io->offset % block_size == 0 && io->length % block_size == 0,
	    "%s of %lu+%lu is not of whole blocks", name, (unsigned long)io->offset,
	    (unsigned long)io->length);
	cr_assert(io->length <= size && io->offset <= size - io->length, "%s beyond the end", name);
	for (unsigned i = 0; i < memory->flights->len; i++) {
		const struct io *other = ((struct flight *)memory->flights->pdata[i])->io;
		cr_assert(other != io, "%s is submitted twice", name);
		if (!op_changes(io->op) && !op_changes(other->op))
			continue;
		if (memory->reads_overlap && (io->op == IO_READ || other->op == IO_READ))
			continue;
		cr_assert(io->offset >= other->offset + other->length ||
		              other->offset >= io->offset + io->length,
		    "%s of %lu+%lu is sent while a %s of %lu+%lu is in flight", name,
		    (unsigned long)io->offset, (unsigned long)io->length, io_op_name(other->op),
		    (unsigned long)other->offset, (unsigned long)other->length);
	}
}

static uint64_t data_checksum(const struct io *io)
{
	uint64_t sum = 14695981039346656037u;

	for (int i = 0; i < io->niov; i++) {
		const uint8_t *data = io->iov[i].iov_base;
		size_t left = io->iov[i].iov_len;
		for (uint64_t word; left >= sizeof(word); left -= sizeof(word)) {
			memcpy(&word, data, sizeof(word));
			sum = (sum ^ word) * 1099511628211u;
			data += sizeof(word);
		}
		while (left--)
			sum = (sum ^ *data++) * 1099511628211u;
	}
	return sum;
}

/* Half of it may have been sent already. */
static void memory_check_data(const struct flight *flight)
{
	const struct io *io = flight->io;

	cr_assert(io->op != IO_WRITE || data_checksum(io) == flight->checksum,
	    "the data of WRITE %lu+%lu changed on its way", (unsigned long)io->offset,
	    (unsigned long)io->length);
}

/* ---- effects ---- */

static void memory_make_stable(
    struct memory_block *memory, uint64_t index, const uint8_t *content, uint64_t at)
{
	uint32_t block_size = memory->block.limits.block_size;

	if (at <= memory->stable_at[index])
		return;
	memcpy(memory->stable + index * block_size, content + index * block_size, block_size);
	memory->stable_at[index] = at;
}

static void memory_change(struct memory_block *memory, const struct io *io)
{
	uint32_t block_size = memory->block.limits.block_size;
	uint8_t *to = memory->content + io->offset;

	if (io->op == IO_WRITE) {
		for (int i = 0; i < io->niov; i++) {
			memcpy(to, io->iov[i].iov_base, io->iov[i].iov_len);
			to += io->iov[i].iov_len;
		}
	} else {
		memset(to, io->op == IO_ZERO ? 0 : MEMORY_DISCARDED, io->length);
	}
	memory->clock++;
	for (uint64_t i = io->offset / block_size; i < (io->offset + io->length) / block_size;
	     i++) {
		memory->written[i] = memory->clock;
		if ((io->flags & IO_FUA) || !memory->block.limits.volatile_cache)
			memory_make_stable(memory, i, memory->content, memory->clock);
	}
}

static void memory_read(const struct memory_block *memory, const struct io *io)
{
	const uint8_t *from = memory->content + io->offset;

	for (int i = 0; i < io->niov; i++) {
		memcpy(io->iov[i].iov_base, from, io->iov[i].iov_len);
		from += io->iov[i].iov_len;
	}
}

static void memory_do(struct memory_block *memory, struct flight *flight)
{
	const struct io *io = flight->io;

	if (flight->executed || flight->error)
		return;
	memory_check_data(flight);
	flight->executed = true;
	if (io->op == IO_READ) {
		memory_read(memory, io);
	} else if (op_changes(io->op)) {
		memory_change(memory, io);
	} else {
		for (uint64_t i = 0; i < memory_blocks(memory); i++)
			memory_make_stable(memory, i, flight->content, flight->written[i]);
	}
}

/* ---- the block ---- */

static void memory_deliver(struct loop_work *work)
{
	struct memory_block *memory =
	    (struct memory_block *)((char *)work - offsetof(struct memory_block, deliver));

	/* What is submitted by a done() waits for the next time. */
	for (unsigned left = memory->flights->len;
	     left > 0 && memory->flights->len && !memory->held && !memory->away; left--)
		memory_block_step(memory);
	if (memory->flights->len && !memory->held && !memory->away)
		loop_defer(memory->loop, &memory->deliver);
}

/* 0, or the error that the next request is to end with. */
static int memory_fate(struct memory_block *memory)
{
	int error = memory->fail_all_error;

	if (!error && memory->fail_one_in &&
	    g_rand_int_range(memory->random, 0, (gint32)memory->fail_one_in) == 0)
		error = memory->fail_often_error;
	if (memory->fail_error && memory->fail_in-- == 0) {
		error = memory->fail_error;
		memory->fail_error = 0;
	}
	return error;
}

static void memory_submit(struct block *block, struct io *io)
{
	struct memory_block *memory = memory_of(block);
	struct memory_record record = {io->op, io->flags, io->offset, io->length, io->niov};
	struct flight *flight = g_new0(struct flight, 1);

	memory_check(memory, io);
	if (memory->watch)
		memory->watch(memory, io, memory->watch_data);
	g_array_append_val(memory->records, record);
	flight->io = io;
	flight->error = memory_fate(memory);
	if (io->op == IO_WRITE)
		flight->checksum = data_checksum(io);
	if (io->op == IO_MAP)
		flight->error = -EOPNOTSUPP;
	if (io->op == IO_FLUSH) {
		flight->content = g_memdup2(memory->content, block->size);
		flight->written =
		    g_memdup2(memory->written, memory_blocks(memory) * sizeof(*memory->written));
	}
	g_ptr_array_add(memory->flights, flight);
	if (!memory->held)
		loop_defer(memory->loop, &memory->deliver);
}

static void memory_free(struct block *block)
{
	struct memory_block *memory = memory_of(block);

	cr_assert(
	    memory->flights->len == 0, "freed with %u requests in flight", memory->flights->len);
	loop_cancel(memory->loop, &memory->deliver);
	g_ptr_array_unref(memory->flights);
	g_ptr_array_unref(memory->ghosts);
	g_array_unref(memory->records);
	g_rand_free(memory->random);
	g_free(memory->content);
	g_free(memory->stable);
	g_free(memory->written);
	g_free(memory->stable_at);
	g_free(memory);
}

static const struct block_ops memory_ops = {.submit = memory_submit, .free = memory_free};

struct memory_block *memory_block_new(struct loop *loop, uint64_t size, uint32_t block_size)
{
	struct memory_block *memory = g_new0(struct memory_block, 1);

	block_stack(&memory->block, &memory_ops, NULL);
	memory->block.size = size;
	memory->block.limits = (struct block_limits){
	    .block_size = block_size,
	    .optimal_size = 256 << 10,
	    .fua = true,
	    .volatile_cache = true,
	};
	memory->loop = loop;
	memory->deliver.run = memory_deliver;
	memory->content = g_malloc0(size);
	memory->stable = g_malloc0(size);
	memory->written = g_new0(uint64_t, memory_blocks(memory));
	memory->stable_at = g_new0(uint64_t, memory_blocks(memory));
	memory->records = g_array_new(FALSE, FALSE, sizeof(struct memory_record));
	memory->flights = g_ptr_array_new_with_free_func(flight_free);
	memory->ghosts = g_ptr_array_new_with_free_func(ghost_free);
	memory->random = g_rand_new_with_seed(1);
	return memory;
}

/* ---- commands ---- */

void memory_block_fill(struct memory_block *memory, const uint8_t *content)
{
	memcpy(memory->content, content, memory->block.size);
	memcpy(memory->stable, content, memory->block.size);
}

void memory_block_hold(struct memory_block *memory, bool hold)
{
	memory->held = hold;
	if (!hold && memory->flights->len)
		loop_defer(memory->loop, &memory->deliver);
}

void memory_block_shuffle(struct memory_block *memory, uint32_t seed)
{
	g_rand_set_seed(memory->random, seed);
	memory->shuffled = true;
}

static unsigned memory_pick(struct memory_block *memory)
{
	unsigned count = memory->flights->len;
	return memory->shuffled ? (unsigned)g_rand_int_range(memory->random, 0, (gint32)count) : 0;
}

void memory_block_step_at(struct memory_block *memory, unsigned index)
{
	cr_assert(index < memory->flights->len && !memory->away, "there is none");
	struct flight *flight = g_ptr_array_steal_index(memory->flights, index);
	struct io *io = flight->io;
	int error = flight->error;
	memory_do(memory, flight);
	flight_free(flight);
	io->done(io, error);
}

bool memory_block_step(struct memory_block *memory)
{
	if (!memory->flights->len || memory->away)
		return false;
	memory_block_step_at(memory, memory_pick(memory));
	return true;
}

void memory_block_step_all(struct memory_block *memory)
{
	while (memory_block_step(memory))
		;
}

unsigned memory_block_in_flight(const struct memory_block *memory)
{
	return memory->flights->len;
}

const struct io *memory_block_peek(const struct memory_block *memory, unsigned index)
{
	cr_assert(
	    index < memory->flights->len, "only %u requests are in flight", memory->flights->len);
	return ((struct flight *)memory->flights->pdata[index])->io;
}

void memory_block_fail(struct memory_block *memory, unsigned skip, int error)
{
	memory->fail_in = skip;
	memory->fail_error = error;
}

void memory_block_fail_often(struct memory_block *memory, unsigned one_in, int error)
{
	memory->fail_one_in = one_in;
	memory->fail_often_error = error;
}

void memory_block_fail_all(struct memory_block *memory, int error)
{
	memory->fail_all_error = error;
}

/* ---- losses ---- */

/* Of each block that is not stable the old or the new content is left. */
static void memory_forget(struct memory_block *memory)
{
	uint32_t block_size = memory->block.limits.block_size;

	for (uint64_t i = 0; i < memory_blocks(memory); i++) {
		if (memory->written[i] == memory->stable_at[i])
			continue;
		if (g_rand_boolean(memory->random))
			memory_make_stable(memory, i, memory->content, memory->written[i]);
		memcpy(
		    memory->content + i * block_size, memory->stable + i * block_size, block_size);
		memory->written[i] = memory->stable_at[i];
	}
}

/* As far as it came, when the target stopped: FUA is a promise only once it is done. */
static void memory_change_partly(struct memory_block *memory, const struct flight *flight)
{
	struct io in_flight = *flight->io;

	if (!flight->executed)
		memory_check_data(flight);
	in_flight.flags = 0;
	if (op_changes(in_flight.op) && !flight->executed && !flight->error)
		memory_change(memory, &in_flight);
}

static void memory_end_all(GPtrArray *flights, int error)
{
	for (unsigned i = 0; i < flights->len; i++) {
		struct io *io = ((struct flight *)flights->pdata[i])->io;
		io->done(io, error);
	}
}

static GPtrArray *memory_take_flights(struct memory_block *memory)
{
	GPtrArray *flights = g_steal_pointer(&memory->flights);

	memory->flights = g_ptr_array_new_with_free_func(flight_free);
	return flights;
}

void memory_block_crash(struct memory_block *memory, int error)
{
	g_autoptr(GPtrArray) lost = memory_take_flights(memory);

	for (unsigned i = 0; i < lost->len && !memory->away; i++)
		memory_change_partly(memory, lost->pdata[i]);
	g_ptr_array_set_size(memory->ghosts, 0);
	memory_forget(memory);
	block_raise(&memory->block, BLOCK_LOST);
	memory_end_all(lost, error);
}

void memory_block_end_all(struct memory_block *memory, int error)
{
	g_autoptr(GPtrArray) flights = memory_take_flights(memory);

	memory_end_all(flights, error);
}

bool memory_block_execute(struct memory_block *memory)
{
	unsigned count = memory->flights->len, first;

	if (!count || memory->away)
		return false;
	first = memory_pick(memory);
	for (unsigned i = 0; i < count; i++) {
		struct flight *flight = memory->flights->pdata[(first + i) % count];
		if (flight->executed || flight->error)
			continue;
		memory_do(memory, flight);
		return true;
	}
	return false;
}

void memory_block_unit_attention(struct memory_block *memory)
{
	for (unsigned i = 0; i < memory->flights->len && !memory->away; i++) {
		struct flight *flight = memory->flights->pdata[i];
		if (flight->io->op == IO_FLUSH) {
			flight->executed = true;
		} else if (op_changes(flight->io->op) && g_rand_boolean(memory->random)) {
			memory_change_partly(memory, flight);
			flight->executed = true;
		}
	}
	memory_forget(memory);
	block_raise(&memory->block, BLOCK_LOST);
}

static void memory_add_ghost(struct memory_block *memory, const struct flight *flight)
{
	struct ghost *ghost;
	uint8_t *to;

	if (!op_changes(flight->io->op) || flight->executed || flight->error)
		return;
	ghost = g_new0(struct ghost, 1);
	ghost->io = *flight->io;
	g_ptr_array_add(memory->ghosts, ghost);
	if (ghost->io.op != IO_WRITE)
		return;
	to = ghost->data = g_malloc(ghost->io.length);
	for (int i = 0; i < ghost->io.niov; i++) {
		memcpy(to, ghost->io.iov[i].iov_base, ghost->io.iov[i].iov_len);
		to += ghost->io.iov[i].iov_len;
	}
	ghost->iov = (struct iovec){ghost->data, ghost->io.length};
	ghost->io.iov = &ghost->iov;
	ghost->io.niov = 1;
}

void memory_block_lose(struct memory_block *memory)
{
	/* What came since an earlier loss was never sent: it goes on waiting. */
	g_autoptr(GPtrArray) lost = memory->away ? g_ptr_array_new() : memory_take_flights(memory);

	memory->away = true;
	for (unsigned i = 0; i < lost->len; i++)
		memory_add_ghost(memory, lost->pdata[i]);
	block_raise(&memory->block, BLOCK_LOST);
	memory_end_all(lost, -ESTALE);
}

bool memory_block_land(struct memory_block *memory)
{
	struct ghost *ghost;

	if (!memory->ghosts->len)
		return false;
	ghost =
	    memory->ghosts->pdata[g_rand_int_range(memory->random, 0, (gint32)memory->ghosts->len)];
	memory_change(memory, &ghost->io);
	g_ptr_array_remove_fast(memory->ghosts, ghost);
	return true;
}

unsigned memory_block_ghosts(const struct memory_block *memory)
{
	return memory->ghosts->len;
}

void memory_block_back(struct memory_block *memory, bool ghosts_stay)
{
	memory->away = false;
	if (!ghosts_stay)
		g_ptr_array_set_size(memory->ghosts, 0);
	/* a FLUSH that waited finds what is there now */
	for (unsigned i = 0; i < memory->flights->len; i++) {
		struct flight *flight = memory->flights->pdata[i];
		if (flight->io->op != IO_FLUSH)
			continue;
		memcpy(flight->content, memory->content, memory->block.size);
		memcpy(flight->written, memory->written,
		    memory_blocks(memory) * sizeof(*memory->written));
	}
	if (!memory->held && memory->flights->len)
		loop_defer(memory->loop, &memory->deliver);
}

const uint8_t *memory_block_stable(const struct memory_block *memory)
{
	return memory->stable;
}

/* ---- records ---- */

const struct memory_record *memory_block_record(const struct memory_block *memory, unsigned index)
{
	cr_assert(index < memory->records->len, "only %u requests came", memory->records->len);
	return &g_array_index(memory->records, struct memory_record, index);
}

unsigned memory_block_count(const struct memory_block *memory, enum io_op op)
{
	unsigned count = 0;

	for (unsigned i = 0; i < memory->records->len; i++)
		count += memory_block_record(memory, i)->op == op;
	return count;
}

void memory_block_forget_records(struct memory_block *memory)
{
	g_array_set_size(memory->records, 0);
}
