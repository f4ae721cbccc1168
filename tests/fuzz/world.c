/*
 * world.c - the functions of libc that reach the world, replaced (world.h).
 *
 * They are found before libc's by the dynamic linker, and so serve libiscsi and GLib too. What is
 * not lunfs' goes on to the kernel.
 */
#undef _FORTIFY_SOURCE /* whose inline functions are in the way */
#include "world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gio/gio.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "lunfs/loop.h"

#define START_US INT64_C(1000000000)

static struct {
	struct loop *loop;
	const struct world_target *target;
	int64_t now_us;
	uint64_t random;
	uint32_t rand;
	int far; /* the end of a socket that is not connected yet */
	unsigned idle_turns;
	bool dead, tells;
} world = {.now_us = START_US, .far = -1};

/* ---- time ---- */

int clock_gettime(clockid_t id, struct timespec *now)
{
	if (world.loop == NULL || id != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, id, now);
	now->tv_sec = world.now_us / 1000000;
	now->tv_nsec = world.now_us % 1000000 * 1000;
	return 0;
}

int64_t world_now_us(void)
{
	return world.now_us;
}

static gint world_poll(GPollFD *fds, guint count, gint timeout)
{
	int64_t wait_us, target_us;
	int ready;

	for (;;) {
		ready = poll((struct pollfd *)(void *)fds, count, 0);
		if (ready != 0)
			return ready;
		if (!world.target->pump())
			break;
		world.idle_turns = 0;
	}
	if (timeout == 0)
		return 0;
	wait_us = timeout * INT64_C(1000);
	target_us = world.target->waits_us();
	if (target_us >= 0 && (timeout < 0 || target_us < wait_us))
		wait_us = target_us;
	else if (timeout < 0)
		world.dead = true;
	if (wait_us > 0) {
		world.now_us += wait_us;
		world.idle_turns = 0;
	}
	return 0;
}

bool world_turn(void)
{
	world.idle_turns++;
	g_main_context_iteration(loop_context(world.loop), TRUE);
	return !world.dead;
}

unsigned world_idle_turns(void)
{
	return world.idle_turns;
}

/* ---- chance ---- */

ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
	uint8_t *bytes = buffer;

	if (world.loop == NULL)
		return syscall(SYS_getrandom, buffer, length, flags);
	for (size_t i = 0; i < length; i++) {
		world.random = world.random * 6364136223846793005u + 1442695040888963407u;
		bytes[i] = (uint8_t)(world.random >> 56);
	}
	return (ssize_t)length;
}

/* libiscsi's first ITT, its challenges */
int rand(void)
{
	return (int)(world.rand++ & 0x7fffffff);
}

void srand(unsigned seed)
{
	(void)seed;
}

/* ---- sockets ---- */

static void world_drop_far(void)
{
	if (world.far >= 0)
		close(world.far);
	world.far = -1;
}

int socket(int domain, int type, int protocol)
{
	int pair[2];

	if (world.loop == NULL || (domain != AF_INET && domain != AF_INET6))
		return (int)syscall(SYS_socket, domain, type, protocol);
	world_drop_far();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	world.far = pair[1];
	return pair[0];
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	if (world.loop == NULL || (address->sa_family != AF_INET && address->sa_family != AF_INET6))
		return (int)syscall(SYS_connect, fd, address, length);
	if (world.far >= 0 && world.target->accept(world.far)) {
		world.far = -1;
		return 0;
	}
	world_drop_far();
	errno = ECONNREFUSED;
	return -1;
}

/*
 * libiscsi asks for numeric addresses only, where libc reads the kernel's list of interfaces all
 * the same. Which address it is does not matter: see connect().
 */
int getaddrinfo(
    const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
	static struct sockaddr_in address = {.sin_family = AF_INET};
	static struct addrinfo answer = {.ai_family = AF_INET,
	    .ai_socktype = SOCK_STREAM,
	    .ai_addrlen = sizeof address,
	    .ai_addr = (struct sockaddr *)&address};
	struct in6_addr bytes;

	(void)service;
	(void)hints;
	if (inet_pton(AF_INET, name, &bytes) != 1 && inet_pton(AF_INET6, name, &bytes) != 1) {
		fprintf(stderr, "fuzz: libiscsi was given the name '%s'\n", name);
		abort();
	}
	*found = &answer;
	return 0;
}

void freeaddrinfo(struct addrinfo *found)
{
	(void)found;
}

/* The lowest free descriptor tells whether one was left open. */
unsigned world_open_files(void)
{
	int fd = dup(STDERR_FILENO);

	close(fd);
	return (unsigned)fd;
}

/* ---- names: every one is this machine's ---- */

typedef GResolver WorldResolver;
typedef GResolverClass WorldResolverClass;
static GType world_resolver_get_type(void);
G_DEFINE_TYPE(WorldResolver, world_resolver, G_TYPE_RESOLVER)

static void world_lookup(GResolver *resolver, const gchar *name, GCancellable *cancellable,
    GAsyncReadyCallback callback, gpointer data)
{
	GTask *task = g_task_new(resolver, cancellable, callback, data);

	if (strstr(name, "invalid") != NULL)
		g_task_return_new_error(task, G_RESOLVER_ERROR, G_RESOLVER_ERROR_NOT_FOUND, "no");
	else
		g_task_return_pointer(task,
		    g_list_append(g_list_append(NULL, g_inet_address_new_from_string("::1")),
		        g_inet_address_new_from_string("127.0.0.1")),
		    (GDestroyNotify)g_resolver_free_addresses);
	g_object_unref(task);
}

static GList *world_lookup_finish(GResolver *resolver, GAsyncResult *result, GError **error)
{
	(void)resolver;
	return g_task_propagate_pointer(G_TASK(result), error);
}

static void world_resolver_init(WorldResolver *resolver)
{
	(void)resolver;
}

static void world_resolver_class_init(WorldResolverClass *class)
{
	class->lookup_by_name_async = world_lookup;
	class->lookup_by_name_finish = world_lookup_finish;
}

/* ---- the log: made, and looked at ---- */

__attribute__((format(printf, 1, 0))) static void world_syslog(const char *format, va_list args)
{
	char line[4096];
	int length = vsnprintf(line, sizeof line, format, args);

	if (world.tells)
		fprintf(stderr, "%8.3f s: %s\n", (double)(world.now_us - START_US) / 1e6, line);
	for (int i = 0; i < length && i < (int)sizeof line - 1; i++) {
		if ((unsigned char)line[i] >= 0x20)
			continue;
		fprintf(stderr, "a log line has a control character: %s\n", line);
		abort();
	}
}

void syslog(int priority, const char *format, ...)
{
	va_list args;

	(void)priority;
	va_start(args, format);
	world_syslog(format, args);
	va_end(args);
}

/* What _FORTIFY_SOURCE makes of it. */
void __syslog_chk(int priority, int flag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void __syslog_chk(int priority, int flag, const char *format, ...)
{
	va_list args;

	(void)priority;
	(void)flag;
	va_start(args, format);
	world_syslog(format, args);
	va_end(args);
}

/* ---- life ---- */

void world_init(struct loop *loop, const struct world_target *target)
{
	GResolver *resolver = g_object_new(world_resolver_get_type(), NULL);

	g_resolver_set_default(resolver);
	g_object_unref(resolver);
	world.loop = loop;
	world.target = target;
	world.tells = getenv("LUNFS_FUZZ_LOG") != NULL;
	g_main_context_set_poll_func(loop_context(loop), world_poll);
}

void world_reset(void)
{
	world_drop_far();
	world.random = 1;
	world.rand = 1;
	world.idle_turns = 0;
	world.dead = false;
}
