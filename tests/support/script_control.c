/*
 * script_control.c - what tests set of the scripted target, and ask of it.
 */
#include "support/script_internal.h"

#include <string.h>
#include <time.h>

static struct script_lun *find_lun(struct script_target *target, unsigned number)
{
	struct script_lun *lun = g_hash_table_lookup(target->luns, GUINT_TO_POINTER(number));

	if (!lun)
		g_error("script_target: there is no LUN %u", number);
	return lun;
}

/* ---- what it is ---- */

void script_target_add_lun_file(struct script_target *target, unsigned lun, uint64_t size,
    unsigned block_size, const char *path)
{
	g_assert(lun < 16384 && size > 0 && block_size >= 512 && size % block_size == 0);
	script_begin(target);
	g_hash_table_replace(
	    target->luns, GUINT_TO_POINTER(lun), lun_new(size, block_size, lun, path));
	script_end(target);
}

void script_target_add_lun(
    struct script_target *target, unsigned lun, uint64_t size, unsigned block_size)
{
	script_target_add_lun_file(target, lun, size, block_size, NULL);
}

void script_target_set(struct script_target *target, const struct script_parameters *parameters)
{
	struct script_parameters set = *parameters;

	set.tag = set.tag ? set.tag : 1;
	set.first_burst = set.first_burst ? set.first_burst : 262144;
	set.max_burst = set.max_burst ? set.max_burst : 262144;
	set.receive_segment = set.receive_segment ? set.receive_segment : 262144;
	set.window = set.window ? set.window : 128;
	set.first_statsn = set.first_statsn ? set.first_statsn : 1;
	script_begin(target);
	target->parameters = set;
	script_end(target);
}

void script_target_add_address(struct script_target *target, const char *address)
{
	script_begin(target);
	g_ptr_array_add(target->addresses, g_strdup(address));
	script_end(target);
}

void script_target_list(struct script_target *target, const void *text, size_t length)
{
	script_begin(target);
	g_clear_pointer(&target->listed, g_byte_array_unref);
	if (text) {
		target->listed = g_byte_array_new();
		g_byte_array_append(target->listed, text, (guint)length);
	}
	script_end(target);
}

void script_target_add_neighbour(
    struct script_target *target, const struct script_target *neighbour)
{
	script_begin(target);
	target->neighbour = neighbour;
	script_end(target);
}

static void attention_for_all(struct script_target *target, unsigned lun, uint8_t asc, uint8_t ascq)
{
	for (guint i = 0; i < target->sessions->len; i++) {
		struct script_session *session = target->sessions->pdata[i];

		if (session->connection && !session->discovery)
			session_attention(session, lun, asc, ascq);
	}
}

void script_target_attention(struct script_target *target, unsigned lun, uint8_t asc, uint8_t ascq)
{
	script_begin(target);
	attention_for_all(target, lun, asc, ascq);
	script_end(target);
}

void script_target_forget(struct script_target *target, unsigned lun)
{
	script_begin(target);
	lun_lose_power(find_lun(target, lun), NULL);
	attention_for_all(target, lun, 0x29, 0x03);
	script_end(target);
}

void script_target_identity(struct script_target *target, unsigned number,
    const struct script_identity *identity, bool at_next_login)
{
	script_begin(target);
	struct script_lun *lun = find_lun(target, number);
	if (at_next_login)
		lun->next = *identity;
	else
		lun_take_identity(lun, identity);
	lun->has_next = at_next_login;
	script_end(target);
}

void script_target_capacity(struct script_target *target, unsigned lun, uint64_t size, bool told)
{
	script_begin(target);
	lun_resize(find_lun(target, lun), size);
	if (told)
		attention_for_all(target, lun, 0x2a, 0x09);
	script_end(target);
}

void script_target_wce(struct script_target *target, unsigned lun, bool wce, bool told)
{
	script_begin(target);
	find_lun(target, lun)->wce = wce;
	if (told)
		attention_for_all(target, lun, 0x2a, 0x01);
	script_end(target);
}

void script_target_read_only(struct script_target *target, unsigned lun, bool read_only)
{
	script_begin(target);
	find_lun(target, lun)->read_only = read_only;
	script_end(target);
}

void script_target_present(struct script_target *target, unsigned lun, bool present)
{
	script_begin(target);
	find_lun(target, lun)->present = present;
	script_end(target);
}

/* ---- scripts ---- */

void script_target_rule(struct script_target *target, struct script_rule rule)
{
	rule.times = rule.times ? rule.times : UINT32_MAX; /* inside, 0 is used up */
	script_begin(target);
	g_array_append_val(target->rules, rule);
	script_end(target);
}

void script_target_sense(
    struct script_target *target, int opcode, unsigned times, struct sense sense)
{
	script_target_rule(target,
	    (struct script_rule){
	        .opcode = opcode, .times = times, .status = SAM_CHECK_CONDITION, .sense = sense});
}

void script_target_login_rule(struct script_target *target, struct script_login_rule rule)
{
	rule.times = rule.times ? rule.times : UINT32_MAX;
	script_begin(target);
	g_array_append_val(target->login_rules, rule);
	script_end(target);
}

void script_target_login_steps(
    struct script_target *target, const struct script_login_step *steps, unsigned count)
{
	script_begin(target);
	g_array_set_size(target->steps, 0);
	if (count)
		g_array_append_vals(target->steps, steps, count);
	script_end(target);
}

void script_target_chap(struct script_target *target, const struct script_chap *chap)
{
	script_begin(target);
	target->wants_chap = chap != NULL;
	if (chap)
		target->chap = *chap;
	script_end(target);
}

void script_target_forget_rules(struct script_target *target)
{
	script_begin(target);
	g_array_set_size(target->rules, 0);
	g_array_set_size(target->login_rules, 0);
	script_end(target);
}

void script_target_release(struct script_target *target)
{
	script_begin(target);
	for (guint i = 0; i < target->tasks->len; i++) {
		struct script_task *task = target->tasks->pdata[i];

		task->due = 0;
		task->rule.mute = false;
		task->rule.answer_delay_ms = 0;
	}
	script_end(target);
}

void script_target_latency(struct script_target *target, uint32_t milliseconds)
{
	script_begin(target);
	target->latency = milliseconds;
	script_end(target);
}

void script_target_freeze(struct script_target *target, bool freeze)
{
	script_begin(target);
	target->frozen = freeze;
	script_end(target);
}

void script_target_task_management(struct script_target *target, int response)
{
	script_begin(target);
	target->management = response;
	script_end(target);
}

void script_target_ghosts(struct script_target *target, enum script_ghosts how, uint32_t ms)
{
	script_begin(target);
	target->ghosts = how;
	target->ghost_ms = ms;
	script_end(target);
}

/* ---- messages ---- */

static bool is_normal(const struct script_connection *connection)
{
	return connection->session && !connection->discovery;
}

static void message_one(struct script_connection *connection, const struct script_message *message)
{
	uint8_t header[BHS_SIZE];
	const uint8_t sense[20] = {0, 18, 0x70, 0,
	    message->sense.key, [9] = 10, [14] = message->sense.asc, message->sense.ascq};

	header_fill(connection, header, OP_ASYNC, NO_TAG, true);
	if (message->event == 0)
		put_be16(header + 8,
		    (uint16_t)(message->lun < 256 ? message->lun : 0x4000 | message->lun));
	header[36] = message->event;
	header[37] = message->vendor_code;
	put_be16(header + 38, message->parameter1);
	put_be16(header + 40, message->parameter2);
	put_be16(header + 42, message->parameter3);
	connection_put(connection, header, sense, message->event == 0 ? sizeof(sense) : 0);
	if (message->event == 2 || message->event == 3)
		connection_send_last(connection);
}

void script_target_message(struct script_target *target, const struct script_message *message)
{
	script_begin(target);
	for (struct script_connection *c = target->connections; c; c = c->next)
		if (is_normal(c))
			message_one(c, message);
	script_end(target);
}

void script_target_ping(struct script_target *target)
{
	uint8_t header[BHS_SIZE];

	script_begin(target);
	for (struct script_connection *c = target->connections; c; c = c->next) {
		if (!is_normal(c))
			continue;
		header_fill(c, header, OP_NOP_IN, NO_TAG, false);
		put_be32(header + 20, target->next_tag++);
		connection_put(c, header, NULL, 0);
	}
	script_end(target);
}

void script_target_send(struct script_target *target, const void *bytes, size_t length)
{
	script_begin(target);
	for (struct script_connection *c = target->connections; c; c = c->next)
		if (is_normal(c))
			connection_send_bytes(c, bytes, length, false);
	script_end(target);
}

/* ---- what happened ---- */

/* Reads one number under the lock. */
#define ASK(target, type, expression)                                                              \
	do {                                                                                       \
		script_begin(target);                                                              \
		type answer = (expression);                                                        \
		pthread_mutex_unlock(&(target)->lock);                                             \
		return answer;                                                                     \
	} while (0)

static bool copy_nth(struct script_target *target, GArray *array, unsigned i, void *to, size_t size)
{
	script_begin(target);
	bool there = i < array->len;
	if (there)
		memcpy(to, array->data + i * size, size);
	pthread_mutex_unlock(&target->lock);
	return there;
}

bool script_target_record(struct script_target *target, unsigned i, struct script_record *record)
{
	return copy_nth(target, target->records, i, record, sizeof(*record));
}

bool script_target_login_attempt(
    struct script_target *target, unsigned i, struct script_login *login)
{
	return copy_nth(target, target->logins, i, login, sizeof(*login));
}

unsigned script_target_records(struct script_target *target)
{
	ASK(target, unsigned, target->records->len);
}

unsigned script_target_login_attempts(struct script_target *target)
{
	ASK(target, unsigned, target->logins->len);
}

static unsigned count_commands(const struct script_target *target, int opcode)
{
	unsigned count = 0;

	for (guint i = 0; i < target->records->len; i++)
		count += opcode_matches(
		    opcode, g_array_index(target->records, struct script_record, i).cdb[0]);
	return count;
}

unsigned script_target_command_count(struct script_target *target, int opcode)
{
	ASK(target, unsigned, count_commands(target, opcode));
}

bool script_target_await(struct script_target *target, int opcode, unsigned count, double seconds)
{
	struct timespec end;
	bool came;

	clock_gettime(CLOCK_REALTIME, &end);
	int64_t nanoseconds = end.tv_nsec + (int64_t)(seconds * 1e9);
	end.tv_sec += nanoseconds / 1000000000;
	end.tv_nsec = nanoseconds % 1000000000;
	script_begin(target);
	while (!(came = count_commands(target, opcode) >= count))
		if (pthread_cond_timedwait(&target->came, &target->lock, &end) != 0)
			break;
	pthread_mutex_unlock(&target->lock);
	return came;
}

unsigned script_target_management_count(struct script_target *target, unsigned function)
{
	ASK(target, unsigned, target->managed[MIN(function, 15)]);
}

static const struct script_login *last_login(const struct script_target *target, unsigned *count)
{
	const struct script_login *last = NULL;

	*count = 0;
	for (guint i = 0; i < target->logins->len; i++) {
		const struct script_login *login =
		    &g_array_index(target->logins, struct script_login, i);

		if (!login->done || login->discovery)
			continue;
		last = login;
		(*count)++;
	}
	return last;
}

unsigned script_target_logins(struct script_target *target)
{
	unsigned count;

	script_begin(target);
	last_login(target, &count);
	pthread_mutex_unlock(&target->lock);
	return count;
}

void script_target_last_isid(struct script_target *target, uint8_t isid[6])
{
	unsigned count;

	script_begin(target);
	const struct script_login *last = last_login(target, &count);
	memset(isid, 0, 6);
	if (last)
		memcpy(isid, last->isid, 6);
	pthread_mutex_unlock(&target->lock);
}

unsigned script_target_pongs(struct script_target *target)
{
	ASK(target, unsigned, target->pongs);
}

static unsigned count_connections(const struct script_target *target)
{
	unsigned count = 0;

	for (const struct script_connection *c = target->connections; c; c = c->next)
		count += !c->dead && !c->silent;
	return count;
}

unsigned script_target_connections(struct script_target *target)
{
	ASK(target, unsigned, count_connections(target));
}

unsigned script_target_complaints(struct script_target *target, char *last, size_t size)
{
	script_begin(target);
	unsigned count = target->complaints;
	if (last && size)
		g_strlcpy(last, target->complaint, size);
	pthread_mutex_unlock(&target->lock);
	return count;
}

/* ---- content ---- */

/* Holds the lock where it gives an image. */
static struct script_lun *open_image(
    struct script_target *target, unsigned number, uint64_t offset, size_t length)
{
	script_begin(target);
	struct script_lun *lun = g_hash_table_lookup(target->luns, GUINT_TO_POINTER(number));
	if (lun && offset <= lun->mapped && length <= lun->mapped - offset)
		return lun;
	pthread_mutex_unlock(&target->lock);
	return NULL;
}

bool script_target_read(struct script_target *target, unsigned number, uint64_t offset,
    void *buffer, size_t length, enum script_image image)
{
	struct script_lun *lun = open_image(target, number, offset, length);

	if (!lun)
		return false;
	memcpy(buffer, (image == SCRIPT_STABLE ? lun->stable : lun->live) + offset, length);
	pthread_mutex_unlock(&target->lock);
	return true;
}

bool script_target_write(struct script_target *target, unsigned number, uint64_t offset,
    const void *bytes, size_t length)
{
	struct script_lun *lun = open_image(target, number, offset, length);

	if (!lun)
		return false;
	memcpy(lun->live + offset, bytes, length);
	memcpy(lun->stable + offset, bytes, length);
	pthread_mutex_unlock(&target->lock);
	return true;
}

uint64_t script_target_dirty(struct script_target *target, unsigned lun)
{
	ASK(target, uint64_t, (uint64_t)g_hash_table_size(find_lun(target, lun)->dirty) * 512);
}
