/*
 * proxy.h - a network that misbehaves on command: a TCP proxy between lunfs and a target.
 *
 * It passes bytes both ways on a thread of its own. Every command below is in force when it
 * returns. One proxy carries any number of connections; a command is for all of them, and for those
 * that come later.
 */
#pragma once

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
/*
 * Fills the pad bytes of Login Responses with 0xA5, as Linux's target leaves garbage in them; all
 * else passes as it is. For connections that start after this.
 */
void proxy_garble_login_padding(struct proxy *proxy);

/* Since the start: connections taken, bytes that arrived (also while stalled), pad bytes garbled.
 */
unsigned proxy_connections(struct proxy *proxy);
uint64_t proxy_arrived(struct proxy *proxy, enum proxy_direction direction);
unsigned proxy_garbled(struct proxy *proxy);
