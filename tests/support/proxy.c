/*
 * proxy.c - the commands of the fault-injecting TCP proxy.
 *
 * A command takes the lock, changes the state and wakes the thread (proxy_thread.c) through an
 * eventfd. What happens to the bytes is proxy_lane.c's.
 */
#include "support/proxy.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "support/proxy_thread.h"

/* ---- start and stop ---- */

static void begin(struct proxy *proxy)
{
	pthread_mutex_lock(&proxy->lock);
}

static void end(struct proxy *proxy)
{
	pthread_mutex_unlock(&proxy->lock);
	eventfd_write(proxy->wake, 1);
}

struct proxy *proxy_open(uint16_t port, const struct sockaddr *target, socklen_t length)
{
	int listener = proxy_listen(port);
	struct sockaddr_in address;
	socklen_t address_length = sizeof(address);
	pthread_condattr_t monotonic;

	if (listener < 0)
		return NULL;
	struct proxy *proxy = g_new0(struct proxy, 1);
	pthread_mutex_init(&proxy->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&proxy->counted, &monotonic);
	pthread_condattr_destroy(&monotonic);
	memcpy(&proxy->target, target, length);
	proxy->target_length = length;
	proxy->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	proxy->listener = listener;
	getsockname(listener, (struct sockaddr *)&address, &address_length);
	proxy->port = ntohs(address.sin_port);
	proxy->cut_at = NEVER;
	proxy->up.direction = PROXY_TO_TARGET;
	proxy->down.direction = PROXY_TO_INITIATOR;
	g_assert_cmpint(pthread_create(&proxy->thread, NULL, proxy_thread, proxy), ==, 0);
	return proxy;
}

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

struct proxy *proxy_start(uint16_t target_port)
{
	struct sockaddr_in target = loopback(target_port);
	struct proxy *proxy = proxy_open(0, (struct sockaddr *)&target, sizeof(target));

	cr_assert(proxy, "the proxy cannot listen: %s", g_strerror(errno));
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
	proxy_free_dead(proxy);
	if (proxy->listener >= 0)
		close(proxy->listener);
	close(proxy->wake);
	pthread_cond_destroy(&proxy->counted);
	pthread_mutex_destroy(&proxy->lock);
	g_free(proxy);
}

/* ---- commands ---- */

/* The next link of the directions behind at; NULL begins, and ends. */
static struct link *next_link(
    struct proxy *proxy, enum proxy_direction directions, const struct link *at)
{
	if (!at && (directions & PROXY_TO_TARGET))
		return &proxy->up;
	if (at != &proxy->down && (directions & PROXY_TO_INITIATOR))
		return &proxy->down;
	return NULL;
}

void proxy_latency(struct proxy *proxy, enum proxy_direction directions, unsigned microseconds)
{
	begin(proxy);
	for (struct link *link = NULL; (link = next_link(proxy, directions, link));)
		link->latency = (int64_t)microseconds * 1000;
	end(proxy);
}

void proxy_limit(struct proxy *proxy, enum proxy_direction directions, uint64_t bytes_per_second)
{
	begin(proxy);
	for (struct link *link = NULL; (link = next_link(proxy, directions, link));) {
		link->rate = bytes_per_second;
		link->sendable_at = proxy_now();
	}
	end(proxy);
}

void proxy_stall(struct proxy *proxy, enum proxy_direction directions)
{
	begin(proxy);
	for (struct link *link = NULL; (link = next_link(proxy, directions, link));)
		link->stalled = true;
	end(proxy);
}

static void lane_resume(struct lane *lane)
{
	if (lane->then == LANE_STALLS)
		lane->barrier = NOWHERE;
}

static void resume(struct proxy *proxy)
{
	for (struct link *link = NULL; (link = next_link(proxy, PROXY_BOTH, link));) {
		link->stalled = false;
		if (link->fault.then == LANE_STALLS)
			link->fault.when = FAULT_NONE;
	}
	for (struct connection *c = proxy->connections; c; c = c->next) {
		lane_resume(&c->up);
		lane_resume(&c->down);
	}
}

void proxy_resume(struct proxy *proxy)
{
	begin(proxy);
	resume(proxy);
	end(proxy);
}

void proxy_cut(struct proxy *proxy, enum proxy_cut how)
{
	begin(proxy);
	proxy_cut_all(proxy, how);
	end(proxy);
}

void proxy_cut_after_ms(struct proxy *proxy, unsigned milliseconds, enum proxy_cut how)
{
	begin(proxy);
	proxy->cut_at = proxy_now() + (int64_t)milliseconds * 1000000;
	proxy->cut_how = how;
	end(proxy);
}

static void arm(
    struct proxy *proxy, enum proxy_direction directions, const struct link_fault *fault)
{
	begin(proxy);
	for (struct link *link = NULL; (link = next_link(proxy, directions, link));) {
		link->fault = *fault;
		link->fault.since = ++link->commands;
	}
	end(proxy);
}

static enum lane_then then_of(enum proxy_cut how)
{
	return how == PROXY_CUT_RST ? LANE_CUTS_RST : LANE_CUTS_FIN;
}

void proxy_stall_within(
    struct proxy *proxy, enum proxy_direction directions, size_t passed, size_t at_least)
{
	arm(proxy, directions,
	    &(struct link_fault){
	        FAULT_WITHIN, LANE_STALLS, .passed = passed, .at_least = at_least});
}

void proxy_cut_within(struct proxy *proxy, enum proxy_direction directions, size_t passed,
    size_t at_least, enum proxy_cut how)
{
	arm(proxy, directions,
	    &(struct link_fault){
	        FAULT_WITHIN, then_of(how), .passed = passed, .at_least = at_least});
}

void proxy_cut_after_bytes(
    struct proxy *proxy, enum proxy_direction directions, uint64_t n, enum proxy_cut how)
{
	arm(proxy, directions,
	    &(struct link_fault){FAULT_AFTER_BYTES, then_of(how), .left = MAX(n, 1)});
}

void proxy_cut_after_pdus(
    struct proxy *proxy, enum proxy_direction directions, uint64_t n, enum proxy_cut how)
{
	arm(proxy, directions,
	    &(struct link_fault){FAULT_AFTER_PDUS, then_of(how), .left = MAX(n, 1)});
}

void proxy_corrupt(struct proxy *proxy, enum proxy_direction directions, enum proxy_part part,
    unsigned nth, unsigned bit)
{
	begin(proxy);
	for (struct link *link = NULL; (link = next_link(proxy, directions, link));)
		link->corruption = (struct link_corruption){nth, part, bit, ++link->commands};
	end(proxy);
}

static void drop(struct proxy *proxy)
{
	for (struct connection *c = proxy->connections; c; c = c->next) {
		if (c->dead)
			continue;
		proxy->taken += c->connecting;
		c->connecting = false;
		c->lost = true;
	}
}

void proxy_drop(struct proxy *proxy, bool dropping)
{
	begin(proxy);
	proxy->dropping = dropping;
	if (dropping)
		drop(proxy);
	end(proxy);
}

static void refuse(struct proxy *proxy, bool refusing)
{
	if (refusing && proxy->listener >= 0) {
		/* shutdown() unlistens even while others hold the descriptor */
		shutdown(proxy->listener, SHUT_RDWR);
		close(proxy->listener);
		proxy->listener = -1;
	} else if (!refusing && proxy->listener < 0) {
		proxy->listener = proxy_listen(proxy->port);
		g_assert_cmpint(proxy->listener, >=, 0); /* else the port was taken meanwhile */
	}
}

void proxy_refuse(struct proxy *proxy, bool refusing)
{
	begin(proxy);
	refuse(proxy, refusing);
	end(proxy);
}

void proxy_heal(struct proxy *proxy)
{
	begin(proxy);
	resume(proxy);
	refuse(proxy, false);
	proxy->dropping = false;
	proxy->cut_at = NEVER;
	for (struct link *link = NULL; (link = next_link(proxy, PROXY_BOTH, link));) {
		link->fault.when = FAULT_NONE;
		link->corruption.left = 0;
	}
	end(proxy);
}

void proxy_retarget(struct proxy *proxy, uint16_t target_port)
{
	struct sockaddr_in target = loopback(target_port);

	begin(proxy);
	memcpy(&proxy->target, &target, sizeof(target));
	proxy->target_length = sizeof(target);
	end(proxy);
}

void proxy_rewrite(struct proxy *proxy, proxy_rewrite_fn *how, const void *data, unsigned times)
{
	begin(proxy);
	proxy->down.rewrite = how;
	proxy->down.rewrite_data = data;
	proxy->down.rewrites_left = times;
	end(proxy);
}

void proxy_garble_login_padding(struct proxy *proxy)
{
	begin(proxy);
	proxy->down.garble = true;
	end(proxy);
}

/* ---- counts ---- */

static uint64_t arrived(const struct proxy *proxy, enum proxy_direction directions)
{
	return (directions & PROXY_TO_TARGET ? proxy->up.arrived : 0) +
	       (directions & PROXY_TO_INITIATOR ? proxy->down.arrived : 0);
}

/* Both not less; false when it takes longer. */
static bool await_counts(struct proxy *proxy, unsigned connections, enum proxy_direction directions,
    uint64_t bytes, double seconds)
{
	int64_t until = proxy_now() + (int64_t)(seconds * 1e9);
	struct timespec deadline = {until / 1000000000, until % 1000000000};
	bool there, waiting = true;

	pthread_mutex_lock(&proxy->lock);
	while (!(there = proxy->taken >= connections && arrived(proxy, directions) >= bytes) &&
	       waiting)
		waiting = pthread_cond_timedwait(&proxy->counted, &proxy->lock, &deadline) == 0;
	pthread_mutex_unlock(&proxy->lock);
	return there;
}

bool proxy_await_connections(struct proxy *proxy, unsigned n, double seconds)
{
	return await_counts(proxy, n, PROXY_BOTH, 0, seconds);
}

bool proxy_await_arrived(
    struct proxy *proxy, enum proxy_direction directions, uint64_t bytes, double seconds)
{
	return await_counts(proxy, 0, directions, bytes, seconds);
}

unsigned proxy_connections(struct proxy *proxy)
{
	begin(proxy);
	unsigned taken = proxy->taken;
	end(proxy);
	return taken;
}

uint64_t proxy_arrived(struct proxy *proxy, enum proxy_direction directions)
{
	begin(proxy);
	uint64_t bytes = arrived(proxy, directions);
	end(proxy);
	return bytes;
}

unsigned proxy_garbled(struct proxy *proxy)
{
	begin(proxy);
	unsigned garbled = proxy->down.garbled;
	end(proxy);
	return garbled;
}

unsigned proxy_rewritten(struct proxy *proxy)
{
	begin(proxy);
	unsigned rewritten = proxy->down.rewritten;
	end(proxy);
	return rewritten;
}

unsigned proxy_corrupted(struct proxy *proxy)
{
	begin(proxy);
	unsigned corrupted = proxy->up.corrupted + proxy->down.corrupted;
	end(proxy);
	return corrupted;
}
