/*
 * proxy.c - the fault-injecting TCP proxy.
 *
 * One thread polls; it holds the lock except while it polls. A command takes the lock, changes the
 * state and wakes the thread through an eventfd. Connections are only ever freed by the thread, so
 * that the descriptors it polls stay what they are.
 *
 * A flow is one direction of a connection: what was read from one socket and is not yet written to
 * the other. From the target it goes through a stage that collects whole PDUs (RFC 7143, 11.2),
 * where they can be rewritten; to the target it passes as bytes.
 */
#include "support/proxy.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLOW_SIZE         65536
#define BHS_SIZE          48 /* basic header segment */
#define OP_LOGIN_RESPONSE 0x23
#define MAX_POLLED        66

struct flow {
	int from, to;
	enum proxy_direction direction;
	GByteArray *incomplete; /* of the PDU that is coming; from the target only */
	GByteArray *leaving;    /* of which sent bytes have left */
	size_t sent;
	bool ended; /* from sent its FIN, or a rewrite said so */
};

struct connection {
	struct connection *next;
	struct flow up, down;
	bool dead;
};

struct proxy {
	pthread_mutex_t lock;
	pthread_t thread;
	uint16_t port, target_port;
	int listener, wake;
	bool stop, refuse, garble;
	unsigned stalled; /* of enum proxy_direction */
	proxy_rewrite_fn *rewrite;
	const void *rewrite_data;
	unsigned rewrites_left;
	unsigned taken, garbled, rewritten;
	uint64_t arrived_up, arrived_down;
	struct connection *connections;
};

/* ---- PDUs of the target ---- */

static size_t pdu_padding(const unsigned char *header)
{
	return -(size_t)header[7] & 3;
}

/* With additional headers, data and padding. */
static size_t pdu_length(const unsigned char *header)
{
	size_t data = (size_t)header[5] << 16 | (size_t)header[6] << 8 | header[7];

	return BHS_SIZE + 4u * header[4] + data + pdu_padding(header);
}

static void garble_padding(struct proxy *proxy, GByteArray *pdu)
{
	size_t padding = pdu_padding(pdu->data);

	if ((pdu->data[0] & 0x3f) != OP_LOGIN_RESPONSE)
		return;
	memset(pdu->data + pdu->len - padding, 0xa5, padding);
	proxy->garbled += (unsigned)padding;
}

static enum proxy_verdict rewrite(struct proxy *proxy, GByteArray *pdu)
{
	enum proxy_verdict verdict = PROXY_PASSED;

	if (proxy->garble)
		garble_padding(proxy, pdu);
	if (proxy->rewrite && proxy->rewrites_left > 0)
		verdict = proxy->rewrite(pdu, proxy->rewrite_data);
	if (verdict != PROXY_PASSED) {
		proxy->rewrites_left--;
		proxy->rewritten++;
	}
	return verdict;
}

/* Passes on the PDUs that are whole by now. */
static void flow_take_pdus(struct proxy *proxy, struct flow *flow)
{
	GByteArray *incomplete = flow->incomplete;

	while (!flow->ended && incomplete->len >= BHS_SIZE) {
		size_t length = pdu_length(incomplete->data);

		if (incomplete->len < length)
			return;
		GByteArray *pdu = g_byte_array_new();
		g_byte_array_append(pdu, incomplete->data, (guint)length);
		g_byte_array_remove_range(incomplete, 0, (guint)length);
		flow->ended = rewrite(proxy, pdu) == PROXY_LAST;
		g_byte_array_append(flow->leaving, pdu->data, pdu->len);
		g_byte_array_unref(pdu);
	}
}

/* ---- connections ---- */

static int listen_on(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 64) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void accept_one(struct proxy *proxy)
{
	struct sockaddr_in target = {.sin_family = AF_INET,
	    .sin_port = htons(proxy->target_port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (client < 0)
		return;
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(server, (struct sockaddr *)&target, sizeof(target)) != 0) {
		close(server);
		close(client);
		return;
	}
	struct connection *made = g_new0(struct connection, 1);
	made->up.from = made->down.to = client;
	made->up.to = made->down.from = server;
	made->up.direction = PROXY_TO_TARGET;
	made->down.direction = PROXY_TO_INITIATOR;
	made->up.leaving = g_byte_array_new();
	made->down.leaving = g_byte_array_new();
	made->down.incomplete = g_byte_array_new();
	made->next = proxy->connections;
	proxy->connections = made;
	proxy->taken++;
}

/*
 * Sends a RST. Dissolving the association does it at once and for good, while close() would wait
 * for every process that a test forked meanwhile and that holds the descriptor too.
 */
static void reset_connection(int fd)
{
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	connect(fd, &nowhere, sizeof(nowhere));
}

static void drop_dead(struct proxy *proxy)
{
	for (struct connection **at = &proxy->connections; *at;) {
		struct connection *connection = *at;

		if (!connection->dead) {
			at = &connection->next;
			continue;
		}
		*at = connection->next;
		shutdown(connection->up.from, SHUT_RDWR); /* a forked child may hold them open */
		shutdown(connection->down.from, SHUT_RDWR);
		close(connection->up.from);
		close(connection->down.from);
		g_byte_array_unref(connection->up.leaving);
		g_byte_array_unref(connection->down.leaving);
		g_byte_array_unref(connection->down.incomplete);
		g_free(connection);
	}
}

static size_t flow_pending(const struct flow *flow)
{
	return flow->leaving->len - flow->sent;
}

/* False when the connection has failed. */
static bool flow_read(struct proxy *proxy, struct flow *flow)
{
	unsigned char bytes[FLOW_SIZE];
	ssize_t n = recv(flow->from, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN;
	if (n == 0) {
		flow->ended = true;
		return true;
	}
	if (flow->direction == PROXY_TO_TARGET) {
		proxy->arrived_up += (uint64_t)n;
		g_byte_array_append(flow->leaving, bytes, (guint)n);
	} else {
		proxy->arrived_down += (uint64_t)n;
		g_byte_array_append(flow->incomplete, bytes, (guint)n);
		flow_take_pdus(proxy, flow);
	}
	return true;
}

static bool flow_write(struct proxy *proxy, struct flow *flow)
{
	if (proxy->stalled & flow->direction)
		return true;
	if (flow_pending(flow) > 0) {
		ssize_t n = send(flow->to, flow->leaving->data + flow->sent, flow_pending(flow),
		    MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN;
		flow->sent += (size_t)n;
	}
	if (flow_pending(flow) > 0)
		return true;
	g_byte_array_set_size(flow->leaving, 0);
	flow->sent = 0;
	return !flow->ended;
}

static void poll_flow(const struct proxy *proxy, const struct connection *connection,
    struct pollfd *client, struct pollfd *server)
{
	const struct flow *flows[] = {&connection->up, &connection->down};

	*client = (struct pollfd){.fd = connection->up.from};
	*server = (struct pollfd){.fd = connection->down.from};
	for (int i = 0; i < 2; i++) {
		const struct flow *flow = flows[i];
		struct pollfd *from = i == 0 ? client : server, *to = i == 0 ? server : client;

		if (flow_pending(flow) < FLOW_SIZE && !flow->ended)
			from->events |= POLLIN;
		if (flow_pending(flow) > 0 && !(proxy->stalled & flow->direction))
			to->events |= POLLOUT;
	}
	/* a socket that nothing is wanted of would report POLLHUP for ever */
	if (!client->events)
		client->fd = -1;
	if (!server->events)
		server->fd = -1;
}

static void serve(struct proxy *proxy, struct connection *connection, const struct pollfd *client,
    const struct pollfd *server)
{
	const short readable = POLLIN | POLLHUP | POLLERR;

	if (client->fd >= 0 && (client->events & POLLIN) && (client->revents & readable))
		connection->dead |= !flow_read(proxy, &connection->up);
	if (server->fd >= 0 && (server->events & POLLIN) && (server->revents & readable))
		connection->dead |= !flow_read(proxy, &connection->down);
	connection->dead |= !flow_write(proxy, &connection->up);
	connection->dead |= !flow_write(proxy, &connection->down);
}

static void *proxy_thread(void *data)
{
	struct proxy *proxy = data;
	struct connection *served[MAX_POLLED / 2];
	struct pollfd polled[2 + MAX_POLLED];
	uint64_t count;

	pthread_mutex_lock(&proxy->lock);
	while (!proxy->stop) {
		unsigned n = 0;

		drop_dead(proxy);
		polled[0] = (struct pollfd){.fd = proxy->wake, .events = POLLIN};
		polled[1] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
		for (struct connection *c = proxy->connections; c && n < MAX_POLLED / 2;
		     c = c->next) {
			poll_flow(proxy, c, &polled[2 + 2 * n], &polled[3 + 2 * n]);
			served[n++] = c;
		}
		pthread_mutex_unlock(&proxy->lock);
		poll(polled, 2 + 2 * n, -1);
		pthread_mutex_lock(&proxy->lock);
		if (polled[0].revents)
			eventfd_read(proxy->wake, &count);
		for (unsigned i = 0; i < n; i++)
			if (!served[i]->dead)
				serve(proxy, served[i], &polled[2 + 2 * i], &polled[3 + 2 * i]);
		if (polled[1].revents && proxy->listener >= 0)
			accept_one(proxy);
	}
	pthread_mutex_unlock(&proxy->lock);
	return NULL;
}

/* ---- commands ---- */

static void begin(struct proxy *proxy)
{
	pthread_mutex_lock(&proxy->lock);
}

static void end(struct proxy *proxy)
{
	pthread_mutex_unlock(&proxy->lock);
	eventfd_write(proxy->wake, 1);
}

struct proxy *proxy_start(uint16_t target_port)
{
	struct proxy *proxy = g_new0(struct proxy, 1);
	struct sockaddr_in address;
	socklen_t length = sizeof(address);

	pthread_mutex_init(&proxy->lock, NULL);
	proxy->target_port = target_port;
	proxy->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	proxy->listener = listen_on(0);
	cr_assert(proxy->listener >= 0);
	getsockname(proxy->listener, (struct sockaddr *)&address, &length);
	proxy->port = ntohs(address.sin_port);
	cr_assert(pthread_create(&proxy->thread, NULL, proxy_thread, proxy) == 0);
	return proxy;
}

uint16_t proxy_port(const struct proxy *proxy)
{
	return proxy->port;
}

void proxy_stop(struct proxy *proxy)
{
	begin(proxy);
	proxy->stop = true;
	end(proxy);
	pthread_join(proxy->thread, NULL);
	for (struct connection *c = proxy->connections; c; c = c->next)
		c->dead = true;
	drop_dead(proxy);
	if (proxy->listener >= 0)
		close(proxy->listener);
	close(proxy->wake);
	g_free(proxy);
}

void proxy_stall(struct proxy *proxy, enum proxy_direction directions)
{
	begin(proxy);
	proxy->stalled |= directions;
	end(proxy);
}

void proxy_resume(struct proxy *proxy)
{
	begin(proxy);
	proxy->stalled = 0;
	end(proxy);
}

void proxy_cut(struct proxy *proxy, enum proxy_cut how)
{
	begin(proxy);
	for (struct connection *c = proxy->connections; c; c = c->next) {
		if (c->dead)
			continue;
		c->dead = true;
		if (how == PROXY_CUT_RST) {
			reset_connection(c->up.from);
			reset_connection(c->down.from);
		} else {
			shutdown(c->up.from, SHUT_RDWR);
			shutdown(c->down.from, SHUT_RDWR);
		}
	}
	end(proxy);
}

void proxy_refuse(struct proxy *proxy, bool refuse)
{
	begin(proxy);
	if (refuse && proxy->listener >= 0) {
		/* shutdown() unlistens even while others hold the descriptor */
		shutdown(proxy->listener, SHUT_RDWR);
		close(proxy->listener);
		proxy->listener = -1;
	} else if (!refuse && proxy->listener < 0) {
		proxy->listener = listen_on(proxy->port);
		cr_assert(proxy->listener >= 0, "port %u was taken meanwhile", proxy->port);
	}
	end(proxy);
}

void proxy_retarget(struct proxy *proxy, uint16_t target_port)
{
	begin(proxy);
	proxy->target_port = target_port;
	end(proxy);
}

void proxy_rewrite(struct proxy *proxy, proxy_rewrite_fn *how, const void *data, unsigned times)
{
	begin(proxy);
	proxy->rewrite = how;
	proxy->rewrite_data = data;
	proxy->rewrites_left = times;
	end(proxy);
}

void proxy_garble_login_padding(struct proxy *proxy)
{
	begin(proxy);
	proxy->garble = true;
	end(proxy);
}

unsigned proxy_connections(struct proxy *proxy)
{
	begin(proxy);
	unsigned taken = proxy->taken;
	end(proxy);
	return taken;
}

uint64_t proxy_arrived(struct proxy *proxy, enum proxy_direction direction)
{
	begin(proxy);
	uint64_t arrived = 0;
	if (direction & PROXY_TO_TARGET)
		arrived += proxy->arrived_up;
	if (direction & PROXY_TO_INITIATOR)
		arrived += proxy->arrived_down;
	end(proxy);
	return arrived;
}

unsigned proxy_garbled(struct proxy *proxy)
{
	begin(proxy);
	unsigned garbled = proxy->garbled;
	end(proxy);
	return garbled;
}

unsigned proxy_rewritten(struct proxy *proxy)
{
	begin(proxy);
	unsigned rewritten = proxy->rewritten;
	end(proxy);
	return rewritten;
}
