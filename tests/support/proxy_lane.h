/*
 * proxy_lane.h - one direction of one connection through the proxy; only proxy.c uses it.
 *
 * A link is a direction of the whole proxy: how it delays, limits and spoils. Its lanes are the
 * connections' shares of it. The lock of the proxy guards both.
 *
 *   recv -> lane_take: frames PDUs, corrupts, rewrites -> ring: waits for its time -> send
 *
 * Invariants: sent <= ripe <= put, and put - sent bytes are in the ring. Marks tell when those from
 * ripe on may leave; their ends and times never decrease. Nothing from the barrier on leaves.
 */
#pragma once

#include "support/proxy.h"

#include <poll.h>

#define BHS_SIZE   48     /* basic header segment: RFC 7143, 11.2.1 */
#define LANE_CHUNK 262144 /* read or sent at a time, at most */
#define NEVER      INT64_MAX
#define NOWHERE    UINT64_MAX

enum lane_then { LANE_STALLS, LANE_CUTS_RST, LANE_CUTS_FIN };

/* Armed by a command, and disarmed by the lane that it happens on. */
struct link_fault {
	enum { FAULT_NONE, FAULT_WITHIN, FAULT_AFTER_BYTES, FAULT_AFTER_PDUS } when;
	enum lane_then then;
	uint64_t left;           /* bytes or PDUs to pass */
	size_t passed, at_least; /* within a PDU */
	unsigned since;
};

struct link_corruption {
	unsigned left; /* counts down to the PDU; 0: none */
	enum proxy_part part;
	unsigned bit, since;
};

struct link {
	enum proxy_direction direction;
	bool stalled;
	int64_t latency;     /* ns */
	uint64_t rate;       /* bytes per second; 0: any */
	int64_t sendable_at; /* by the rate */
	unsigned commands;   /* numbers faults and corruptions, to tell PDUs that began before */
	struct link_fault fault;
	struct link_corruption corruption;
	bool garble;
	proxy_rewrite_fn *rewrite;
	const void *rewrite_data;
	unsigned rewrites_left;
	unsigned garbled, rewritten, corrupted;
	uint64_t arrived;
};

struct lane {
	struct link *link;
	struct lane *opposite;
	int from, to;
	/* the PDU that is coming */
	unsigned char header[BHS_SIZE];
	size_t at, length;  /* arrived of it; in all, once the header is there */
	size_t flip_at;     /* byte of it to corrupt */
	unsigned char flip; /* with this */
	unsigned begun;     /* link->commands when it began */
	bool hold_header, hold_all;
	GByteArray *held;  /* of it, not yet put into the ring */
	GByteArray *login; /* text of a Login Response */
	bool header_digest_chosen, data_digest_chosen, header_digest, data_digest;
	/* what waits to leave: offsets in the stream that the receiver sees */
	unsigned char *ring;
	size_t ring_size; /* a power of two */
	uint64_t put, ripe, sent, barrier;
	enum lane_then then; /* at the barrier */
	int64_t barrier_since;
	GQueue marks;
	int64_t last_due;
	bool ended; /* from sent its FIN, or a rewrite said so */
	bool last;  /* a rewrite said so: the connection ends with it */
	bool closed;
	int64_t ended_due;
};

int64_t proxy_now(void); /* ns */

void lane_init(struct lane *lane, struct link *link, struct lane *opposite);
void lane_clear(struct lane *lane);
/* Takes what arrived; it may change the bytes. */
void lane_take(struct lane *lane, unsigned char *bytes, size_t size, int64_t now);
/* No more will arrive. */
void lane_end(struct lane *lane, int64_t now);
/* How many bytes to read now. */
size_t lane_room(const struct lane *lane);
/*
 * Where the lane wants the next bytes, to spare it a copy; size says how many, and may become less.
 * NULL when anywhere else is right.
 */
unsigned char *lane_space(struct lane *lane, size_t *size);
/* There are bytes that may leave as soon as the socket takes them. */
bool lane_wants_out(struct lane *lane, int64_t now);
/* Sends what may leave, and the FIN behind the last; false when the connection is over. */
bool lane_write(struct lane *lane, int64_t now);
/* Has come to where it is to be cut, and the receiver has all before it. */
bool lane_at_cut(struct lane *lane, int64_t now);
/* When to look again though no socket stirs. */
int64_t lane_next(const struct lane *lane, int64_t now);
