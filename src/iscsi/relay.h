/*
 * relay.h - between libiscsi and the target while they log in.
 *
 * libiscsi reads the pad bytes of a Login Response as text, and some targets (Linux's own) leave
 * garbage there: mutual CHAP then fails by luck. The relay takes the place of the target on
 * libiscsi's file descriptor, passes whole PDUs, with their padding zeroed, and steps aside when
 * the login is over. On the way it notes what the target answered, which libiscsi keeps to itself.
 * Needed for libiscsi up to 1.20.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct relay;

/* Puts itself between fd, a connected TCP socket, and its user, who keeps the number. NULL with
 * errno set. */
struct relay *relay_new(struct loop *loop, int fd);
/* The login is over: fd is the TCP socket again. */
void relay_free(struct relay *relay);
/* Status-Class and Status-Detail of the last Login Response (RFC 7143, 11.13.5); -1 where none
 * came. */
int relay_login_status(const struct relay *relay);
/* The target's TargetPortalGroupTag (RFC 7143, 13.9); -1 where it told none. */
int relay_portal_group(const struct relay *relay);
/* What was agreed on up to now: see keys_outcome(). Free with g_strfreev(). */
char **relay_keys(const struct relay *relay);
/* Did it hang up because of a key's value that would be the end of libiscsi? */
bool relay_refused_keys(const struct relay *relay);
