/*
 * dial.h - from a portal's name to a connection that is logged in: every address in turn, redirects
 * followed.
 */
#pragma once

#include "connection.h"
#include "lunfs/iscsi.h"

struct dial;

struct dial_result {
	struct connection *
	    connection; /* the receiver's from here on, see connection_hand_over(); or NULL, and: */
	const char *error; /* one sentence; valid until done() returns */
	int status;   /* class << 8 | detail of the last Login Response (RFC 7143, 11.13.5) from
	                 the last portal, whichever of its addresses it came from; -1: none came */
	bool refused; /* the target said no (class 02h), or could not prove itself */
	bool wants_secret; /* the last that was reached said no to who we are */
	/* The target has moved there from the request's portal for good (0102h); NULL: it has not.
	 * Valid until done() returns. */
	const struct portal *moved;
};

/* Is the answer no until somebody changes something, there or here? See login_may_pass(). */
bool dial_was_refused_for_long(const struct dial_result *result);

enum dial_stage { DIAL_RESOLVING, DIAL_CONNECTING, DIAL_LOGGING_IN };

struct dial_request {
	struct loop *loop;
	const struct login *login;
	const struct portal *portal; /* of the login's target; borrowed for the call */
	unsigned timeout_ms;         /* for all of it, */
	unsigned connect_ms;         /* and for TCP at one address */
	void (*stage)(enum dial_stage stage, void *data); /* NULL: nobody asks */
	/* Called once, never from inside dial_start(); the receiver calls dial_free() then, or
	 * earlier to end it. */
	void (*done)(const struct dial_result *result, void *data);
	void *data;
};
struct dial *dial_start(const struct dial_request *request);
void dial_free(struct dial *dial);

/* "HOST[:PORT][,TPGT]" as targets write portals (RFC 7143, 13.8); false for anything else. */
bool portal_parse(const char *text, struct portal *portal, uint16_t *tpgt);
