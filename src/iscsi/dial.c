/*
 * dial.c - from a portal's name to a connection that is logged in.
 *
 *   resolve --addresses--> connect and log in to one --UP--> done
 *      ^                    |            |
 *      |                 redirect       DOWN: the next address, while there is one and time
 *      +--------------------+
 *
 * All of it happens within one time: an address gets its share of what is left of it, so that a
 * dead one does not use up the time of the others.
 */
#include "dial.h"

#include <gio/gio.h>
#include <string.h>

#include "lunfs/log.h"
#include "lunfs/loop.h"
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
	int64_t deadline_ms;
	GSource *timer; /* over the resolution; a connection has its own */
	char *error;
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

static void dial_finish(struct dial *dial, struct connection *connection, bool refused)
{
	if (connection == NULL && dial->error == NULL)
		dial->error = g_strdup_printf("%s was not reached in time", dial->portal.host);
	struct dial_result result = {.connection = connection,
	    .error = dial->error,
	    .refused = refused,
	    .wants_secret = connection == NULL && dial->wants_secret};

	dial->request.done(&result, dial->request.data);
}

static void dial_follow(struct dial *dial, const char *address)
{
	struct portal portal;

	const char *target = dial->request.login->target;

	log_debug_of(target, "%s redirects to %s", dial->portal.host, address);
	if (++dial->redirects > REDIRECT_LIMIT || !portal_parse(address, &portal, NULL)) {
		g_free(dial->error);
		dial->error = g_strdup_printf(
		    "the target's redirection to '%s' leads nowhere: give its portal yourself",
		    address);
		dial_finish(dial, NULL, true);
		return;
	}
	g_free(dial->portal.host);
	dial->portal = portal;
	dial_resolve(dial);
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
		dial_finish(dial, connection, false);
		return;
	}
	g_autofree char *redirect = g_strdup(connection_redirect(connection));
	bool refused = connection_was_refused(connection);
	dial->wants_secret = connection_wants_secret(connection);
	g_free(dial->error);
	dial->error = g_strdup(connection_error(connection));
	connection_free(g_steal_pointer(&dial->connection));
	if (redirect != NULL)
		dial_follow(dial, redirect);
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
		g_free(dial->error);
		dial->error = g_strdup(error);
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

	g_free(dial->error);
	dial->error = g_strdup_printf(
	    "the name server does not answer for '%s': give an address", dial->portal.host);
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
	    .deadline_ms = clock_ms() + request->timeout_ms,
	};
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
	g_free(dial->portal.host);
	g_free(dial->error);
	g_free(dial);
}
