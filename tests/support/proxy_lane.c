/*
 * proxy_lane.c - one direction of one connection through the proxy: see proxy_lane.h.
 */
#include "support/proxy_lane.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#define OP_LOGIN_RESPONSE  0x23
#define PLAIN_ROOM         65536u      /* without latency */
#define LATENCY_ROOM       (4u << 20)  /* with latency: and a byte a ns, so that 1 GB/s fit, */
#define LATENCY_ROOM_LIMIT (64u << 20) /* but not more than this */
#define RATE_CREDIT        (5 * 1000 * 1000) /* ns that a late thread may catch up */
#define DRAIN_LOOK         (200 * 1000)      /* ns between looks whether all was acknowledged */
#define DRAIN_LIMIT        1000000000        /* ns, then it is cut though it was not */

struct mark {
	uint64_t end;
	int64_t due;
};

int64_t proxy_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void lane_init(struct lane *lane, struct link *link, struct lane *opposite)
{
	lane->link = link;
	lane->opposite = opposite;
	lane->held = g_byte_array_new();
	lane->login = g_byte_array_new();
	lane->barrier = NOWHERE;
	lane->flip_at = SIZE_MAX;
	g_queue_init(&lane->marks);
}

void lane_clear(struct lane *lane)
{
	g_byte_array_unref(lane->held);
	g_byte_array_unref(lane->login);
	g_queue_clear_full(&lane->marks, g_free);
	g_free(lane->ring);
}

/* ---- the ring ---- */

static void ring_grow(struct lane *lane, size_t wanted)
{
	size_t size = lane->ring_size ? lane->ring_size : PLAIN_ROOM;
	uint64_t end;

	while (size < wanted)
		size *= 2;
	unsigned char *ring = g_malloc(size);
	for (uint64_t at = lane->sent; at < lane->put; at = end) {
		size_t from = at & (lane->ring_size - 1), to = at & (size - 1);
		size_t part = MIN(MIN(lane->ring_size - from, size - to), lane->put - at);

		memcpy(ring + to, lane->ring + from, part);
		end = at + part;
	}
	g_free(lane->ring);
	lane->ring = ring;
	lane->ring_size = size;
}

static void set_barrier(struct lane *lane, uint64_t at)
{
	lane->barrier = at;
	lane->then = lane->link->fault.then;
	lane->barrier_since = 0;
	lane->link->fault.when = FAULT_NONE;
}

static void count_bytes(struct lane *lane, size_t size)
{
	struct link_fault *fault = &lane->link->fault;

	if (fault->when != FAULT_AFTER_BYTES || lane->barrier != NOWHERE)
		return;
	if (size >= fault->left)
		set_barrier(lane, lane->put + fault->left);
	else
		fault->left -= size;
}

static void ring_put(struct lane *lane, const unsigned char *bytes, size_t size)
{
	size_t waiting = (size_t)(lane->put - lane->sent);

	if (size == 0)
		return;
	count_bytes(lane, size);
	if (waiting + size > lane->ring_size)
		ring_grow(lane, waiting + size);
	size_t at = lane->put & (lane->ring_size - 1), part = MIN(size, lane->ring_size - at);
	if (bytes != lane->ring + at) { /* else lane_space() had it received in place */
		memcpy(lane->ring + at, bytes, part);
		memcpy(lane->ring, bytes + part, size - part);
	}
	lane->put += size;
}

static void put_held(struct lane *lane)
{
	ring_put(lane, lane->held->data, lane->held->len);
	g_byte_array_set_size(lane->held, 0);
}

/* Tells when what was put may leave. */
static void mark_put(struct lane *lane, int64_t now)
{
	uint64_t marked = lane->ripe;
	struct mark *tail = g_queue_peek_tail(&lane->marks);

	if (tail)
		marked = tail->end;
	if (lane->put == marked)
		return;
	if (!tail && lane->link->latency == 0) {
		lane->ripe = lane->put;
		return;
	}
	lane->last_due = MAX(lane->last_due, now + lane->link->latency);
	struct mark *mark = g_new(struct mark, 1);
	*mark = (struct mark){lane->put, lane->last_due};
	g_queue_push_tail(&lane->marks, mark);
}

static void ripen(struct lane *lane, int64_t now)
{
	for (struct mark *mark; (mark = g_queue_peek_head(&lane->marks)) && mark->due <= now;) {
		lane->ripe = mark->end;
		g_free(g_queue_pop_head(&lane->marks));
	}
}

/* ---- PDUs ---- */

static size_t data_length(const unsigned char *header)
{
	return (size_t)header[5] << 16 | (size_t)header[6] << 8 | header[7];
}

static size_t pdu_padding(const unsigned char *header)
{
	return -(size_t)header[7] & 3;
}

/* Where the data begin: behind additional headers and the header digest. */
static size_t data_offset(const struct lane *lane)
{
	return BHS_SIZE + 4u * lane->header[4] + (lane->header_digest ? 4 : 0);
}

static size_t pdu_length(const struct lane *lane)
{
	size_t data = data_length(lane->header);

	return data_offset(lane) + data + pdu_padding(lane->header) +
	       (data && lane->data_digest ? 4 : 0);
}

static void garble_padding(struct link *link, GByteArray *pdu)
{
	size_t padding = pdu_padding(pdu->data);

	if ((pdu->data[0] & 0x3f) != OP_LOGIN_RESPONSE)
		return;
	memset(pdu->data + pdu->len - padding, 0xa5, padding);
	link->garbled += (unsigned)padding;
}

static enum proxy_verdict rewrite(struct link *link, GByteArray *pdu)
{
	enum proxy_verdict verdict = PROXY_PASSED;

	if (link->garble)
		garble_padding(link, pdu);
	if (link->rewrite && link->rewrites_left > 0)
		verdict = link->rewrite(pdu, link->rewrite_data);
	if (verdict != PROXY_PASSED) {
		link->rewrites_left--;
		link->rewritten++;
	}
	return verdict;
}

static void choose_victim(struct lane *lane, size_t offset, size_t size)
{
	struct link_corruption *corruption = &lane->link->corruption;

	if (--corruption->left > 0)
		return;
	lane->flip_at = offset + corruption->bit / 8 % size;
	lane->flip = (unsigned char)(1u << corruption->bit % 8);
	lane->link->corrupted++;
}

static void pdu_begins(struct lane *lane)
{
	struct link *link = lane->link;

	lane->begun = link->commands;
	lane->hold_all = link->garble || (link->rewrite && link->rewrites_left > 0);
	lane->hold_header = link->fault.when == FAULT_WITHIN && lane->barrier == NOWHERE;
	if (link->corruption.left > 0 && link->corruption.part == PROXY_HEADER)
		choose_victim(lane, 0, BHS_SIZE);
}

static void break_within(struct lane *lane)
{
	const struct link_fault *fault = &lane->link->fault;
	size_t passed = fault->passed == PROXY_HALF ? lane->length / 2 : fault->passed;

	if (fault->when != FAULT_WITHIN || lane->length < fault->at_least ||
	    lane->length <= passed || lane->barrier != NOWHERE)
		return;
	set_barrier(lane, lane->put + passed);
}

static void header_is_there(struct lane *lane)
{
	const struct link_corruption *corruption = &lane->link->corruption;
	size_t data = data_length(lane->header);

	lane->length = pdu_length(lane);
	if (corruption->left > 0 && corruption->part == PROXY_DATA && data > 0 &&
	    corruption->since <= lane->begun)
		choose_victim(lane, data_offset(lane), data);
	if (lane->hold_header)
		break_within(lane);
	lane->hold_header = false;
	if (!lane->hold_all)
		put_held(lane);
}

static bool says(const GByteArray *text, const char *pair)
{
	return text->len > 0 && memmem(text->data, text->len, pair, strlen(pair) + 1);
}

/* Digests begin behind the Login Response that leads to the full feature phase. */
static void learn_digests(struct lane *lane)
{
	lane->header_digest_chosen |= says(lane->login, "HeaderDigest=CRC32C");
	lane->data_digest_chosen |= says(lane->login, "DataDigest=CRC32C");
	g_byte_array_set_size(lane->login, 0);
	if ((lane->header[1] & 0x83) != 0x83 || lane->header[36] != 0)
		return;
	lane->header_digest = lane->opposite->header_digest = lane->header_digest_chosen;
	lane->data_digest = lane->opposite->data_digest = lane->data_digest_chosen;
}

static void pdu_ends(struct lane *lane)
{
	struct link_fault *fault = &lane->link->fault;

	if (lane->hold_all) {
		lane->last = rewrite(lane->link, lane->held) == PROXY_LAST;
		put_held(lane);
	}
	if (lane->link->direction == PROXY_TO_INITIATOR &&
	    (lane->header[0] & 0x3f) == OP_LOGIN_RESPONSE)
		learn_digests(lane);
	if (fault->when == FAULT_AFTER_PDUS && fault->since <= lane->begun &&
	    lane->barrier == NOWHERE && --fault->left == 0)
		set_barrier(lane, lane->put);
	lane->at = 0;
	lane->flip_at = SIZE_MAX;
	lane->hold_all = false;
}

static void take_part(struct lane *lane, unsigned char *bytes, size_t size)
{
	if (lane->at < BHS_SIZE)
		memcpy(lane->header + lane->at, bytes, size);
	else if (lane->link->direction == PROXY_TO_INITIATOR &&
	         (lane->header[0] & 0x3f) == OP_LOGIN_RESPONSE && lane->login->len < PLAIN_ROOM)
		g_byte_array_append(lane->login, bytes, (guint)size);
	if (lane->flip_at >= lane->at && lane->flip_at - lane->at < size)
		bytes[lane->flip_at - lane->at] ^= lane->flip;
	if (lane->hold_header || lane->hold_all)
		g_byte_array_append(lane->held, bytes, (guint)size);
	else
		ring_put(lane, bytes, size);
	lane->at += size;
}

void lane_take(struct lane *lane, unsigned char *bytes, size_t size, int64_t now)
{
	while (size > 0 && !lane->last) {
		if (lane->at == 0)
			pdu_begins(lane);
		bool in_header = lane->at < BHS_SIZE;
		size_t part = MIN(size, (in_header ? BHS_SIZE : lane->length) - lane->at);
		take_part(lane, bytes, part);
		bytes += part;
		size -= part;
		if (in_header && lane->at == BHS_SIZE)
			header_is_there(lane);
		if (lane->at >= BHS_SIZE && lane->at == lane->length)
			pdu_ends(lane);
	}
	mark_put(lane, now);
	if (lane->last)
		lane_end(lane, now);
}

void lane_end(struct lane *lane, int64_t now)
{
	put_held(lane); /* a part of a PDU */
	mark_put(lane, now);
	lane->ended = true;
	lane->ended_due = MAX(lane->last_due, now + lane->link->latency);
}

/* ---- the way out ---- */

size_t lane_room(const struct lane *lane)
{
	size_t waiting = (size_t)(lane->put - lane->sent);
	int64_t latency = lane->link->latency;
	size_t room = PLAIN_ROOM;

	if (lane->ended)
		return 0;
	if (latency > 0)
		room = (size_t)MIN(LATENCY_ROOM + latency, (int64_t)LATENCY_ROOM_LIMIT);
	if (waiting >= room)
		return 0;
	return latency > 0 ? MIN(room - waiting, LANE_CHUNK) : PLAIN_ROOM;
}

unsigned char *lane_space(struct lane *lane, size_t *size)
{
	const struct link *link = lane->link;
	size_t waiting = (size_t)(lane->put - lane->sent);

	if (link->garble || link->rewrite || link->fault.when == FAULT_WITHIN || lane->held->len)
		return NULL;
	if (waiting + *size > lane->ring_size)
		ring_grow(lane, waiting + *size);
	size_t at = lane->put & (lane->ring_size - 1);
	*size = MIN(*size, lane->ring_size - at);
	return lane->ring + at;
}

/* Ripe, and before the barrier. */
static size_t sendable(const struct lane *lane)
{
	return lane->link->stalled ? 0 : (size_t)(MIN(lane->ripe, lane->barrier) - lane->sent);
}

static bool rate_allows(const struct link *link, int64_t now)
{
	return link->rate == 0 || link->sendable_at <= now;
}

/* A 200th of a second at a time keeps a slow lane smooth. */
static size_t rate_portion(const struct link *link)
{
	return link->rate ? (size_t)CLAMP(link->rate / 200, 1, LANE_CHUNK) : LANE_CHUNK;
}

static void rate_spend(struct link *link, int64_t now, size_t size)
{
	if (link->rate)
		link->sendable_at = MAX(link->sendable_at, now - RATE_CREDIT) +
		                    (int64_t)((double)size * 1e9 / (double)link->rate);
}

bool lane_wants_out(struct lane *lane, int64_t now)
{
	ripen(lane, now);
	return sendable(lane) > 0 && rate_allows(lane->link, now);
}

static bool end_is_due(const struct lane *lane)
{
	return lane->ended && !lane->closed && lane->sent == lane->put &&
	       lane->sent != lane->barrier && !lane->link->stalled;
}

bool lane_write(struct lane *lane, int64_t now)
{
	if (lane_wants_out(lane, now)) {
		size_t at = lane->sent & (lane->ring_size - 1);
		size_t part =
		    MIN(MIN(sendable(lane), rate_portion(lane->link)), lane->ring_size - at);
		ssize_t n = send(lane->to, lane->ring + at, part, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		lane->sent += (size_t)n;
		rate_spend(lane->link, now, (size_t)n);
	}
	if (!end_is_due(lane) || lane->ended_due > now)
		return true;
	if (lane->last)
		return false;
	lane->closed = true;
	shutdown(lane->to, SHUT_WR);
	return !lane->opposite->closed;
}

static bool cut_is_near(const struct lane *lane)
{
	return lane->sent == lane->barrier && lane->then != LANE_STALLS;
}

bool lane_at_cut(struct lane *lane, int64_t now)
{
	int unacknowledged = 0;

	if (!cut_is_near(lane))
		return false;
	if (lane->barrier_since == 0)
		lane->barrier_since = now;
	ioctl(lane->to, SIOCOUTQ, &unacknowledged);
	return unacknowledged == 0 || now - lane->barrier_since > DRAIN_LIMIT;
}

int64_t lane_next(const struct lane *lane, int64_t now)
{
	const struct mark *mark = g_queue_peek_head((GQueue *)&lane->marks);

	if (cut_is_near(lane))
		return now + DRAIN_LOOK;
	if (lane->link->stalled)
		return NEVER;
	if (sendable(lane) > 0)
		return rate_allows(lane->link, now) ? NEVER : lane->link->sendable_at;
	if (mark && lane->sent < lane->barrier)
		return mark->due;
	return end_is_due(lane) ? lane->ended_due : NEVER;
}
