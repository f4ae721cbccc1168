/*
 * proxy.h - a network that misbehaves on command: a TCP proxy between lunfs and a target.
 *
 * It passes bytes both ways on a thread of its own. Every command below is in force when it
 * returns. One proxy carries any number of connections; a command is for all of them, and for those
 * that come later.
 *
 * What comes from the target is passed PDU by PDU, so that a test can rewrite one. Sessions through
 * it must not use digests.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

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
uint16_t proxy_port(const struct proxy *proxy);
void proxy_stop(struct proxy *proxy);

/* Stops passing what comes from now on, and goes on with it, in order. */
void proxy_stall(struct proxy *proxy, enum proxy_direction directions);
void proxy_resume(struct proxy *proxy);
/* Ends the connections there are, dropping what is under way. */
void proxy_cut(struct proxy *proxy, enum proxy_cut how);
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
 * Since the start: connections taken, bytes that arrived (also while stalled), pad bytes garbled,
 * PDUs that a rewrite did not let pass.
 */
unsigned proxy_connections(struct proxy *proxy);
uint64_t proxy_arrived(struct proxy *proxy, enum proxy_direction direction);
unsigned proxy_garbled(struct proxy *proxy);
unsigned proxy_rewritten(struct proxy *proxy);
