/*
 * proxy.h - a network that misbehaves on command: a TCP proxy between lunfs and a target.
 *
 * It passes bytes both ways on a thread of its own. Every command below is in force when it
 * returns. One proxy carries any number of connections; a command is for all of them, and for those
 * that come later.
 *
 * Bytes pass as they come, of any protocol; a FIN passes behind them and leaves the other direction
 * open; a RST passes at once. Commands that speak of PDUs want iSCSI from a connection's start. The
 * proxy follows the login, and knows of digests; a rewrite must not meet any.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct proxy;

enum proxy_direction {
	PROXY_TO_TARGET = 1 << 0,
	PROXY_TO_INITIATOR = 1 << 1,
	PROXY_BOTH = PROXY_TO_TARGET | PROXY_TO_INITIATOR,
};
enum proxy_cut { PROXY_CUT_RST, PROXY_CUT_FIN };

/* Listens on 127.0.0.1 at a port of its choice, and connects to 127.0.0.1:target_port for each
 * client. */
struct proxy *proxy_start(uint16_t target_port);
/*
 * The same for any target, listening at a port of 127.0.0.1, or one of its choice: 0. NULL and
 * errno when it cannot listen.
 */
struct proxy *proxy_open(uint16_t port, const struct sockaddr *target, socklen_t length);
uint16_t proxy_port(const struct proxy *proxy);
void proxy_stop(struct proxy *proxy);

/* ---- the nature of the network ---- */

/*
 * Bytes and FINs leave that many microseconds after they came, in order, any number of them under
 * way: up to 4 MiB a connection and direction, and 1 MiB more for each ms, in all 64 MiB. Behind
 * that the sender feels backpressure. 0 ends it.
 */
void proxy_latency(struct proxy *proxy, enum proxy_direction directions, unsigned microseconds);
/* All connections together pass so many bytes per second in each of the directions; 0: any. */
void proxy_limit(struct proxy *proxy, enum proxy_direction directions, uint64_t bytes_per_second);

/* ---- troubles that last ---- */

/* Stops passing what comes from now on, and goes on with it, in order. Going on also ends what
 * proxy_stall_within() did, or still waits to do. */
void proxy_stall(struct proxy *proxy, enum proxy_direction directions);
void proxy_resume(struct proxy *proxy);
/*
 * From now on all bytes vanish, those under way included, without RST or FIN. Who connects is
 * accepted, and never served. When that is over, new connections work; those that were dropped stay
 * silent. The proxy leaves one when both of its ends have; or when the initiator has, and new
 * connections work again.
 */
void proxy_drop(struct proxy *proxy, bool drop);
/* Ends stall, drop and refusal, and forgets what waits for its PDU, its bytes or its time. */
void proxy_heal(struct proxy *proxy);

/* ---- troubles of a moment ---- */

/* Ends the connections there are, dropping what is under way. */
void proxy_cut(struct proxy *proxy, enum proxy_cut how);
/* The same after a time; a later call counts. */
void proxy_cut_after_ms(struct proxy *proxy, unsigned milliseconds, enum proxy_cut how);

/*
 * The next four wait for their moment. Each direction has one of them waiting: a later call takes
 * the place of an earlier one, whichever it is. It comes to the first connection where it can, and
 * to no other. A cut comes when the receiver has got all that passes. PDUs count that begin after
 * the call.
 *
 * Of the next PDU of at_least bytes or more, and of more than passed, the first ones pass and then
 * nothing. PROXY_HALF passes half of them.
 */
#define PROXY_HALF SIZE_MAX
void proxy_stall_within(
    struct proxy *proxy, enum proxy_direction directions, size_t passed, size_t at_least);
void proxy_cut_within(struct proxy *proxy, enum proxy_direction directions, size_t passed,
    size_t at_least, enum proxy_cut how);
/* n more bytes or PDUs, at least one, pass on all connections together; the last one's is cut. */
void proxy_cut_after_bytes(
    struct proxy *proxy, enum proxy_direction directions, uint64_t n, enum proxy_cut how);
void proxy_cut_after_pdus(
    struct proxy *proxy, enum proxy_direction directions, uint64_t n, enum proxy_cut how);

/*
 * Flips a bit of the nth PDU from now (1 is the next), or of the nth one with data: bit % 8 of byte
 * bit / 8, where that is taken modulo the part's length. Digests stay as they were, so they are
 * wrong. It waits beside the others; nth 0 forgets it.
 */
enum proxy_part { PROXY_HEADER, PROXY_DATA };
void proxy_corrupt(struct proxy *proxy, enum proxy_direction directions, enum proxy_part part,
    unsigned nth, unsigned bit);

/* New connections are refused (closed port), or taken again. */
void proxy_refuse(struct proxy *proxy, bool refuse);
/* New connections lead to another port of 127.0.0.1: the target has moved. */
void proxy_retarget(struct proxy *proxy, uint16_t target_port);
/*
 * Fills the pad bytes of Login Responses with 0xA5, as Linux's target leaves garbage in them; all
 * else passes as it is.
 */
void proxy_garble_login_padding(struct proxy *proxy);

/* What a rewrite made of a PDU: let it pass as it is, changed it, or made it its connection's last.
 */
enum proxy_verdict { PROXY_PASSED, PROXY_CHANGED, PROXY_LAST };
/*
 * Looks at a PDU of the target: 48 bytes of header, then data with its padding. It may change the
 * bytes and their number; what it leaves is sent. It runs in the proxy's thread.
 */
typedef enum proxy_verdict proxy_rewrite_fn(GByteArray *pdu, const void *data);
/* Shows every PDU to the rewrite until it did not let pass as many as times; NULL ends that. */
void proxy_rewrite(struct proxy *proxy, proxy_rewrite_fn *how, const void *data, unsigned times);

/*
 * Since the start: connections made with the target, or dropped; bytes that arrived (also while
 * stalled or dropped); pad bytes garbled; PDUs that a rewrite did not let pass; bits flipped.
 */
unsigned proxy_connections(struct proxy *proxy);
uint64_t proxy_arrived(struct proxy *proxy, enum proxy_direction directions);
unsigned proxy_garbled(struct proxy *proxy);
unsigned proxy_rewritten(struct proxy *proxy);
unsigned proxy_corrupted(struct proxy *proxy);
/* Wait until there were so many since the start; false when they did not come in the seconds. */
bool proxy_await_connections(struct proxy *proxy, unsigned n, double seconds);
bool proxy_await_arrived(
    struct proxy *proxy, enum proxy_direction directions, uint64_t bytes, double seconds);
