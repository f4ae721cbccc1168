/*
 * dial.c - from a portal's name to a connection that is logged in.
 *
 *   resolve --addresses--> connect and log in to one --UP--> done
 *      ^                    |            |
 *      |                 redirect       DOWN: the next address, while there is one and time
 *      +--------------------+
 *
 * All of it happens within one time: an address gets its share of what is left of it, so that a
 * dead one does not use up the time of the others. Redirects (RFC 7143, 11.13.5) are followed
 * within it, too; one that leads to where we have been is the end.
 */
#include "dial.h"

#include <gio/gio.h>
#include <string.h>

#include "login_status.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/printable.h"
#include "resolve.h"

#define ISCSI_PORT     3260
#define REDIRECT_LIMIT 5u

struct dial {
	struct dial_request request;
	struct portal portal; /* the request's, or where a redirect sent us */
	struct resolve *resolve;
	struct connection *connection;
	GPtrArray *addresses;
	unsigned next_address, redirects;
	GPtrArray *path;     /* where we were, as text, in order; owned */
	struct portal moved; /* see dial_result; its host is NULL where it has not */
	bool detour;         /* a redirect was for a while only (0101h) */
	int64_t deadline_ms;
	GSource *timer; /* over the resolution; a connection has its own */
	char *error;
	int status; /* see dial_result */
	bool wants_secret;
};

static void dial_resolve(struct dial *dial);
static void dial_next(struct dial *dial);

bool portal_parse(const char *text, struct portal *portal, uint16_t *tpgt)
{
	g_auto(GStrv) parts = g_strsplit(text, ",", 2);
	guint64 tag = 1;

	if (parts[0] == NULL ||
	    (parts[1] != NULL && !g_ascii_string_to_unsigned(parts[1], 10, 0, 65535, &tag, NULL)))
		return false;
	g_autoptr(GSocketConnectable) address = g_network_address_parse(parts[0], ISCSI_PORT, NULL);
	if (address == NULL ||
	    g_network_address_get_hostname(G_NETWORK_ADDRESS(address))[0] == '\0')
		return false;
	portal->host = g_strdup(g_network_address_get_hostname(G_NETWORK_ADDRESS(address)));
	portal->port = g_network_address_get_port(G_NETWORK_ADDRESS(address));
	if (tpgt != NULL)
		*tpgt = (uint16_t)tag;
	return true;
}

bool dial_was_refused_for_long(const struct dial_result *result)
{
	return result->refused && !login_may_pass(result->status);
}

static unsigned dial_time_left(const struct dial *dial)
{
	int64_t left = dial->deadline_ms - clock_ms();

	return left > 0 ? (unsigned)left : 0;
}

static void dial_enter(struct dial *dial, enum dial_stage stage)
{
	if (dial->request.stage != NULL)
		dial->request.stage(stage, dial->request.data);
}

/* "A -> B -> C" */
static char *dial_tell_path(const struct dial *dial)
{
	GString *text = g_string_new(g_ptr_array_index(dial->path, 0));

	for (unsigned i = 1; i < dial->path->len; i++)
		g_string_append_printf(
		    text, " -> %s", (const char *)g_ptr_array_index(dial->path, i));
	return g_string_free(text, FALSE);
}

static void dial_set_error(struct dial *dial, char *error)
{
	g_free(dial->error);
	dial->error = error;
}

/* Whoever reads it may not know the address that it is about. */
static void dial_explain_path(struct dial *dial)
{
	g_autofree char *path = dial_tell_path(dial);

	dial_set_error(dial, g_strdup_printf("%s (redirected: %s)", dial->error, path));
}

static void dial_finish(struct dial *dial, struct connection *connection, bool refused)
{
	if (connection == NULL && dial->error == NULL)
		dial->error = g_strdup_printf("%s was not reached in time", dial->portal.host);
	if (connection == NULL && dial->redirects > 0)
		dial_explain_path(dial);
	struct dial_result result = {.connection = connection,
	    .error = dial->error,
	    .status = dial->status,
	    .refused = refused,
	    .wants_secret = connection == NULL && dial->wants_secret,
	    .moved = dial->moved.host != NULL ? &dial->moved : NULL};

	dial->request.done(&result, dial->request.data);
}

/* ---- redirects (RFC 7143, 11.13.5) ---- */

static const char *dial_target(const struct dial *dial)
{
	const char *target = dial->request.login->target;

	return target != NULL ? target : dial->portal.host;
}

static bool dial_was_at(const struct dial *dial, const char *address)
{
	for (unsigned i = 0; i < dial->path->len; i++)
		if (g_ascii_strcasecmp(g_ptr_array_index(dial->path, i), address) == 0)
			return true;
	return false;
}

/* Only moves for good lead to where the target is for good. */
static void dial_note_move(struct dial *dial, bool permanent)
{
	dial->detour |= !permanent;
	if (dial->detour)
		return;
	g_free(dial->moved.host);
	dial->moved =
	    (struct portal){.host = g_strdup(dial->portal.host), .port = dial->portal.port};
}

static void dial_follow(struct dial *dial, const char *to, bool permanent)
{
	struct portal portal;

	log_debug_of(dial->request.login->target, "%s redirects to %s%s", dial->portal.host,
	    to != NULL ? to : "nowhere", permanent ? ", for good" : "");
	if (to == NULL || !portal_parse(to, &portal, NULL)) {
		dial_set_error(dial,
		    g_strdup_printf("%s: the target's redirect away from %s does not say where to "
		                    "(TargetAddress%s%s): give its portal yourself",
		        dial_target(dial), dial->portal.host, to != NULL ? "=" : " is missing",
		        to != NULL ? to : ""));
		dial_finish(dial, NULL, false);
		return;
	}
	g_free(dial->portal.host);
	dial->portal = portal;
	char *address = portal_format(portal.host, portal.port);
	bool circle = dial_was_at(dial, address);
	g_ptr_array_add(dial->path, address);
	if (circle || ++dial->redirects > REDIRECT_LIMIT) {
		dial_set_error(
		    dial, g_strdup_printf("%s: the target's redirects %s: give its portal yourself",
		              dial_target(dial), circle ? "go in a circle" : "do not end"));
		dial_finish(dial, NULL, false);
		return;
	}
	dial_note_move(dial, permanent);
	dial->status = -1;
	g_clear_pointer(&dial->error, g_free);
	if (dial_time_left(dial) > 0)
		dial_resolve(dial);
	else
		dial_finish(dial, NULL, false);
}

/* ---- connections ---- */

/* It is down, and told why. */
static void dial_note_failure(struct dial *dial, struct connection *connection)
{
	int status = connection_login_status(connection);

	dial->status = status >= 0 ? status : dial->status;
	dial->wants_secret = connection_wants_secret(connection);
	dial_set_error(dial, g_strdup(connection_error(connection)));
}

static void dial_connection_event(
    struct connection *connection, enum connection_event event, void *data)
{
	struct dial *dial = data;

	if (event == CONNECTION_STANDS) {
		dial_enter(dial, DIAL_LOGGING_IN);
		return;
	}
	if (event == CONNECTION_UP) {
		dial->connection = NULL;
		dial->status = connection_login_status(connection);
		dial_finish(dial, connection, false);
		return;
	}
	if (event != CONNECTION_DOWN)
		return;
	const char *to = connection_redirect(connection);
	g_autofree char *redirect = to != NULL ? printable(to) : NULL;
	bool refused = connection_was_refused(connection);
	int status = connection_login_status(connection);
	dial_note_failure(dial, connection);
	/* A name may have led there, and it is one more that a circle can close at. */
	if (redirect != NULL && !dial_was_at(dial, connection_address(connection)))
		g_ptr_array_add(dial->path, g_strdup(connection_address(connection)));
	connection_free(g_steal_pointer(&dial->connection));
	if (status == LOGIN_MOVED_TEMPORARILY || status == LOGIN_MOVED_PERMANENTLY)
		dial_follow(dial, redirect, status == LOGIN_MOVED_PERMANENTLY);
	else if (refused)
		dial_finish(dial, NULL, true);
	else
		dial_next(dial);
}

static void dial_next(struct dial *dial)
{
	unsigned left = dial_time_left(dial);
	unsigned untried = dial->addresses->len - dial->next_address;

	if (untried == 0 || left == 0) {
		dial_finish(dial, NULL, false);
		return;
	}
	const char *address = g_ptr_array_index(dial->addresses, dial->next_address++);
	dial_enter(dial, DIAL_CONNECTING);
	dial->connection = connection_new(dial->request.loop, dial->request.login, address,
	    dial->request.connect_ms, left / untried, dial_connection_event, dial);
}

static void dial_resolved(GPtrArray *addresses, const char *error, void *data)
{
	struct dial *dial = data;

	loop_remove(&dial->timer);
	if (addresses == NULL) {
		dial_set_error(dial, g_strdup(error));
		dial_finish(dial, NULL, false);
		return;
	}
	g_clear_pointer(&dial->addresses, g_ptr_array_unref);
	dial->addresses = addresses;
	dial->next_address = 0;
	dial_next(dial);
}

static void dial_resolve_expired(void *data)
{
	struct dial *dial = data;

	dial_set_error(
	    dial, g_strdup_printf("the name server does not answer for '%s': give an address",
	              dial->portal.host));
	dial_finish(dial, NULL, false);
}

static void dial_resolve(struct dial *dial)
{
	resolve_free(g_steal_pointer(&dial->resolve));
	loop_remove(&dial->timer);
	dial_enter(dial, DIAL_RESOLVING);
	dial->timer =
	    loop_timer(dial->request.loop, dial_time_left(dial), dial_resolve_expired, dial);
	dial->resolve = resolve_start(&dial->portal, dial_resolved, dial);
}

struct dial *dial_start(const struct dial_request *request)
{
	struct dial *dial = g_new0(struct dial, 1);

	*dial = (struct dial){
	    .request = *request,
	    .portal = {.host = g_strdup(request->portal->host), .port = request->portal->port},
	    .path = g_ptr_array_new_with_free_func(g_free),
	    .deadline_ms = clock_ms() + request->timeout_ms,
	    .status = -1,
	};
	g_ptr_array_add(dial->path, portal_format(dial->portal.host, dial->portal.port));
	dial_resolve(dial);
	return dial;
}

void dial_free(struct dial *dial)
{
	if (dial == NULL)
		return;
	loop_remove(&dial->timer);
	resolve_free(dial->resolve);
	connection_free(dial->connection);
	g_clear_pointer(&dial->addresses, g_ptr_array_unref);
	g_ptr_array_unref(dial->path);
	g_free(dial->portal.host);
	g_free(dial->moved.host);
	g_free(dial->error);
	g_free(dial);
}
