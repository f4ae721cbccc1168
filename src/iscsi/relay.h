/*
 * relay.h - between libiscsi and the target while they log in, and all through a discovery.
 *
 * It takes the place of the target on libiscsi's file descriptor, and passes whole PDUs to and fro
 * as exchange.h mends them. When the login is over it steps aside. Needed for libiscsi up to 1.20,
 * and master of 2026: see exchange.h.
 */
#pragma once

#include "exchange.h"

struct loop;
struct relay;

/* Puts itself between fd, a connected TCP socket, and its user, who keeps the number. login is
 * borrowed. NULL with errno set. */
struct relay *relay_new(struct loop *loop, int fd, const struct login *login);
/* The login is over: fd is the TCP socket again. */
void relay_free(struct relay *relay);
const struct exchange *relay_exchange(const struct relay *relay);
