/*
 * route.c - where a session logs in next (route.h).
 */
#include "route.h"

#include <string.h>

#include "login_status.h"
#include "lunfs/loop.h"

/* Between two logins at a portal that says no. */
#define REFUSED_MIN_MS 1000
#define REFUSED_MAX_MS 60000

struct stop {
	int64_t not_before_ms; /* INT64_MAX: not before the session has stood elsewhere */
	unsigned refusals;     /* in a row */
};

struct route {
	const GPtrArray *portals;
	struct stop *stops;  /* one for each of them */
	unsigned at, tried;  /* the one in use; how many this round has seen */
	struct portal moved; /* for good; its host is NULL where it has not */
	unsigned moved_from; /* portals' */
	bool moved_is_next;  /* or is being dialed, as long as it is not noted */
};

struct route *route_new(const GPtrArray *portals)
{
	struct route *route = g_new0(struct route, 1);

	route->portals = portals;
	route->stops = g_new0(struct stop, portals->len);
	return route;
}

void route_free(struct route *route)
{
	if (route == NULL)
		return;
	g_free(route->moved.host);
	g_free(route->stops);
	g_free(route);
}

void route_begin_round(struct route *route)
{
	route->tried = 0;
	route->moved_is_next = route->moved.host != NULL;
}

const struct portal *route_next(struct route *route)
{
	int64_t now = clock_ms();

	if (route->moved_is_next)
		return &route->moved;
	for (; route->tried < route->portals->len; route->tried++) {
		if (route->stops[route->at].not_before_ms <= now)
			return g_ptr_array_index(route->portals, route->at);
		route->at = (route->at + 1) % route->portals->len;
	}
	return NULL;
}

static void route_forget_move(struct route *route)
{
	g_clear_pointer(&route->moved.host, g_free);
}

static void route_note_move(struct route *route, const struct portal *moved)
{
	g_free(route->moved.host);
	route->moved = (struct portal){.host = g_strdup(moved->host), .port = moved->port};
	route->moved_from = route->at;
}

static void stop_note_failure(struct stop *stop, const struct dial_result *result, bool first)
{
	int64_t pause;

	if (first) {
		stop->not_before_ms = login_is_put_off(result->status) ? 0 : INT64_MAX;
	} else if (dial_was_refused_for_long(result)) {
		pause = (int64_t)REFUSED_MIN_MS << MIN(stop->refusals, 10u);
		stop->refusals++;
		stop->not_before_ms = clock_ms() + MIN(pause, REFUSED_MAX_MS);
	} else {
		*stop = (struct stop){0};
	}
}

void route_note(struct route *route, const struct dial_result *result, bool first)
{
	bool at_moved = route->moved_is_next, stands = result->connection != NULL;
	bool put_off = login_is_put_off(result->status);
	unsigned at = at_moved ? route->moved_from : route->at;

	route->moved_is_next = false;
	if (stands && first) /* who could not be reached then may be next time */
		memset(route->stops, 0, route->portals->len * sizeof *route->stops);
	else if (stands)
		route->stops[at] = (struct stop){0};
	else if (!at_moved || result->refused)
		stop_note_failure(&route->stops[at], result, first);
	if (result->moved != NULL && (stands || put_off))
		route_note_move(route, result->moved);
	else if (at_moved && !stands && !put_off)
		route_forget_move(route);
	if (stands)
		return;
	if (at_moved && put_off) {
		route->tried = route->portals->len; /* they would only send us there */
	} else if (!at_moved) {
		route->at = (route->at + 1) % route->portals->len;
		route->tried++;
	}
}

int64_t route_due_ms(const struct route *route)
{
	int64_t due = INT64_MAX;

	if (route->moved.host != NULL)
		return 0;
	for (unsigned i = 0; i < route->portals->len; i++)
		due = MIN(due, route->stops[i].not_before_ms);
	return due;
}
