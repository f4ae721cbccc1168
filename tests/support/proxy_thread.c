/*
 * proxy_thread.c - the thread of the fault-injecting TCP proxy.
 *
 * It holds the lock except while it polls. Connections are only ever freed, and their descriptors
 * closed, by it, so that what it polls stays what it is.
 */
#include "support/proxy_thread.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SWALLOWED      (1u << 20)
#define ACCEPT_REST    100000000 /* ns without accepting when descriptors ran out */
#define LATENESS_STEP  2000      /* ns */
#define LATENESS_LIMIT 100000    /* ns: as long it may spin before each due time */

/* ---- connections ---- */

int proxy_listen(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 64) != 0) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static void send_at_once(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int start_connecting(const struct proxy *proxy)
{
	int fd = socket(proxy->target.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	send_at_once(fd);
	if (connect(fd, (const struct sockaddr *)&proxy->target, proxy->target_length) != 0 &&
	    errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

static void accept_one(struct proxy *proxy, int64_t now)
{
	int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int server = -1;

	if (client < 0) {
		if (errno == EMFILE || errno == ENFILE)
			proxy->accept_at = now + ACCEPT_REST;
		return;
	}
	send_at_once(client);
	if (!proxy->dropping && (server = start_connecting(proxy)) < 0) {
		close(client);
		return;
	}
	struct connection *made = g_new0(struct connection, 1);
	made->client = made->up.from = made->down.to = client;
	made->server = made->up.to = made->down.from = server;
	lane_init(&made->up, &proxy->up, &made->down);
	lane_init(&made->down, &proxy->down, &made->up);
	made->connecting = !proxy->dropping;
	made->lost = proxy->dropping;
	proxy->taken += made->lost;
	made->next = proxy->connections;
	proxy->connections = made;
}

static void finish_connecting(struct proxy *proxy, struct connection *connection)
{
	int error = 0;
	socklen_t length = sizeof(error);

	getsockopt(connection->server, SOL_SOCKET, SO_ERROR, &error, &length);
	connection->connecting = false;
	connection->dead = error != 0;
	proxy->taken += error == 0;
}

/*
 * Sends a RST. Dissolving the association does it at once and for good, while close() would wait
 * for every process that a test forked meanwhile and that holds the descriptor too.
 */
static void reset_connection(int fd)
{
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	if (fd >= 0)
		connect(fd, &nowhere, sizeof(nowhere));
}

/* Sends a FIN, were it not sent; close() alone would not while a forked child holds it open. What
 * is still to read would make a RST of it. */
static void close_socket(int *fd)
{
	if (*fd < 0)
		return;
	shutdown(*fd, SHUT_RDWR);
	while (recv(*fd, NULL, SWALLOWED, MSG_DONTWAIT | MSG_TRUNC) > 0)
		continue;
	close(*fd);
	*fd = -1;
}

static void cut_connection(struct connection *connection, enum proxy_cut how)
{
	connection->dead = true;
	if (how == PROXY_CUT_RST) {
		reset_connection(connection->client);
		reset_connection(connection->server);
	} else {
		shutdown(connection->client, SHUT_RDWR);
		shutdown(connection->server, SHUT_RDWR);
	}
}

void proxy_cut_all(struct proxy *proxy, enum proxy_cut how)
{
	for (struct connection *c = proxy->connections; c; c = c->next)
		if (!c->dead && !c->lost)
			cut_connection(c, how);
}

void proxy_free_dead(struct proxy *proxy)
{
	for (struct connection **at = &proxy->connections; *at;) {
		struct connection *connection = *at;

		if (connection->lost && connection->client < 0 &&
		    (connection->server < 0 || !proxy->dropping))
			connection->dead = true;
		if (!connection->dead) {
			at = &connection->next;
			continue;
		}
		*at = connection->next;
		close_socket(&connection->client);
		close_socket(&connection->server);
		lane_clear(&connection->up);
		lane_clear(&connection->down);
		g_free(connection);
	}
}

/* The first comes last at the next turn: none starves where they share a rate. */
static void rotate(struct proxy *proxy)
{
	struct connection *first = proxy->connections, **end = &proxy->connections;

	if (!first || !first->next)
		return;
	while (*end)
		end = &(*end)->next;
	proxy->connections = first->next;
	first->next = NULL;
	*end = first;
}

/* ---- the thread ---- */

static void lane_poll(struct lane *lane, struct pollfd *from, struct pollfd *to, int64_t now)
{
	if (lane_room(lane) > 0)
		from->events |= POLLIN;
	if (lane_wants_out(lane, now))
		to->events |= POLLOUT;
}

/* Returns when to look again though no socket stirs. */
static int64_t poll_connection(
    struct connection *connection, struct pollfd *client, struct pollfd *server, int64_t now)
{
	int64_t next = NEVER;

	*client = (struct pollfd){.fd = connection->client};
	*server = (struct pollfd){.fd = connection->server};
	if (connection->lost) {
		client->events = server->events = POLLIN;
	} else if (connection->connecting) {
		server->events = POLLOUT;
	} else {
		lane_poll(&connection->up, client, server, now);
		lane_poll(&connection->down, server, client, now);
		next = MIN(lane_next(&connection->up, now), lane_next(&connection->down, now));
	}
	/* a socket that nothing is wanted of would report POLLHUP for ever */
	if (!client->events)
		client->fd = -1;
	if (!server->events)
		server->fd = -1;
	return next;
}

static void swallow(struct link *link, int *fd, const struct pollfd *polled)
{
	if (*fd < 0 || !polled->revents)
		return;
	ssize_t n = recv(*fd, NULL, SWALLOWED, MSG_DONTWAIT | MSG_TRUNC);
	if (n > 0)
		link->arrived += (uint64_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_socket(fd);
}

/* False when the connection has failed. */
static bool lane_read(struct proxy *proxy, struct lane *lane, const struct pollfd *polled)
{
	size_t room = lane_room(lane);

	if (room == 0 || !(polled->events & POLLIN) || polled->fd < 0 ||
	    !(polled->revents & (POLLIN | POLLHUP | POLLERR)))
		return true;
	unsigned char *bytes = lane_space(lane, &room);
	if (!bytes)
		bytes = proxy->chunk;
	ssize_t n = recv(lane->from, bytes, room, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) {
		lane_end(lane, proxy_now());
		return true;
	}
	lane->link->arrived += (uint64_t)n;
	lane_take(lane, bytes, (size_t)n, proxy_now());
	return true;
}

static void serve(struct proxy *proxy, struct connection *connection, const struct pollfd *client,
    const struct pollfd *server)
{
	struct lane *lanes[] = {&connection->up, &connection->down};

	if (connection->lost) {
		swallow(&proxy->up, &connection->client, client);
		swallow(&proxy->down, &connection->server, server);
		return;
	}
	if (connection->connecting) {
		if (server->revents)
			finish_connecting(proxy, connection);
		return;
	}
	if (!lane_read(proxy, lanes[0], client) || !lane_read(proxy, lanes[1], server)) {
		cut_connection(connection, PROXY_CUT_RST); /* as one of the ends did */
		return;
	}
	for (int i = 0; i < 2; i++)
		connection->dead |= !lane_write(lanes[i], proxy_now());
	for (int i = 0; i < 2 && !connection->dead; i++)
		if (lane_at_cut(lanes[i], proxy_now()))
			cut_connection(connection,
			    lanes[i]->then == LANE_CUTS_RST ? PROXY_CUT_RST : PROXY_CUT_FIN);
}

/*
 * Timers are late by some 50 us. So it asks to be woken earlier by what they mostly were late by,
 * and spends the rest of the time, if there is any, looking.
 */
static void wait_for(struct proxy *proxy, GArray *polled, int64_t until)
{
	int64_t wake = until - proxy->lateness, span = MAX(wake - proxy_now(), 0);
	struct timespec timeout = {span / 1000000000, span % 1000000000};
	int stirred = ppoll(
	    (struct pollfd *)polled->data, polled->len, until == NEVER ? NULL : &timeout, NULL);

	if (stirred == 0 && span > 0)
		proxy->lateness =
		    CLAMP(proxy->lateness + (proxy_now() - wake > proxy->lateness ? LATENESS_STEP
		                                                                  : -LATENESS_STEP),
		        0, LATENESS_LIMIT);
}

/* Notes what to poll, for whom; returns until when at most. */
static int64_t prepare(struct proxy *proxy, GArray *polled, GPtrArray *served)
{
	int64_t now = proxy_now(), until = proxy->cut_at;
	struct pollfd wake = {.fd = proxy->wake, .events = POLLIN};
	struct pollfd listener = {.fd = proxy->listener, .events = POLLIN};

	if (proxy->accept_at > now) {
		listener.fd = -1;
		until = MIN(until, proxy->accept_at);
	}
	g_ptr_array_set_size(served, 0);
	g_array_set_size(polled, 0);
	g_array_append_val(polled, wake);
	g_array_append_val(polled, listener);
	for (struct connection *c = proxy->connections; c; c = c->next) {
		struct pollfd pair[2];
		int64_t next = poll_connection(c, &pair[0], &pair[1], now);

		until = MIN(until, next);
		g_array_append_vals(polled, pair, 2);
		g_ptr_array_add(served, c);
	}
	return until;
}

void *proxy_thread(void *data)
{
	struct proxy *proxy = data;
	GArray *polled = g_array_new(FALSE, FALSE, sizeof(struct pollfd));
	GPtrArray *served = g_ptr_array_new();
	uint64_t count;

	prctl(PR_SET_TIMERSLACK, 1);
	pthread_mutex_lock(&proxy->lock);
	while (!proxy->stop) {
		proxy_free_dead(proxy);
		rotate(proxy);
		int64_t until = prepare(proxy, polled, served);
		pthread_mutex_unlock(&proxy->lock);
		wait_for(proxy, polled, until);
		pthread_mutex_lock(&proxy->lock);
		const struct pollfd *polls = (const struct pollfd *)polled->data;
		if (polls[0].revents)
			eventfd_read(proxy->wake, &count);
		for (unsigned i = 0; i < served->len; i++) {
			struct connection *connection = served->pdata[i];
			if (!connection->dead)
				serve(proxy, connection, &polls[2 + 2 * i], &polls[3 + 2 * i]);
		}
		if (polls[1].revents && proxy->listener >= 0)
			accept_one(proxy, proxy_now());
		if (proxy->cut_at <= proxy_now()) {
			proxy->cut_at = NEVER;
			proxy_cut_all(proxy, proxy->cut_how);
		}
		pthread_cond_broadcast(&proxy->counted);
	}
	pthread_mutex_unlock(&proxy->lock);
	g_array_unref(polled);
	g_ptr_array_unref(served);
	return NULL;
}
