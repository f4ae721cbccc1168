/*
 * script_target.c - the scripted target's thread, its connections and its power.
 */
#include "support/script_internal.h"
#include "support/tgt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

int64_t script_now(void)
{
	return g_get_monotonic_time() / 1000;
}

int64_t script_due(uint32_t ms)
{
	return ms == SCRIPT_NEVER ? DUE_NEVER : script_now() + ms;
}

void script_begin(struct script_target *target)
{
	pthread_mutex_lock(&target->lock);
}

void script_end(struct script_target *target)
{
	pthread_mutex_unlock(&target->lock);
	eventfd_write(target->wake, 1);
}

/* ---- the port ---- */

static int bind_to(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int listen_on(uint16_t port)
{
	int fd = bind_to(port);

	if (fd >= 0 && listen(fd, 64) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/*
 * Takes the port for good: a socket that is bound and does not listen keeps it from free_port() of
 * others while it is closed.
 */
static bool target_take_port(struct script_target *target, uint16_t port)
{
	target->port = port;
	target->reserve = bind_to(port);
	target->listener = target->reserve >= 0 ? listen_on(port) : -1;
	if (target->listener >= 0)
		return true;
	if (target->reserve >= 0)
		close(target->reserve);
	return false;
}

void target_listen(struct script_target *target, bool wanted)
{
	target->open_at = DUE_NEVER;
	if (wanted && target->listener < 0) {
		target->listener = listen_on(target->port);
		if (target->listener < 0)
			g_error("script_target: port %u was taken meanwhile", target->port);
	} else if (!wanted && target->listener >= 0) {
		/* shutdown() unlistens even while forked children hold the descriptor */
		shutdown(target->listener, SHUT_RDWR);
		close(target->listener);
		target->listener = -1;
	}
}

static void accept_one(struct script_target *target)
{
	int fd = accept4(target->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	struct script_connection *made = g_new0(struct script_connection, 1);
	*made = (struct script_connection){
	    .target = target,
	    .next = target->connections,
	    .index = target->accepted++,
	    .fd = fd,
	    .in = g_byte_array_new(),
	    .keys = g_string_new(NULL),
	    .statsn = target->parameters.first_statsn,
	    .send_segment = 8192, /* the default of RFC 7143, 13.12 */
	};
	g_queue_init(&made->out);
	target->connections = made;
}

/* ---- connections ---- */

static void leaving_free(void *data)
{
	struct script_leaving *leaving = data;

	g_byte_array_unref(leaving->bytes);
	g_free(leaving);
}

static void connection_free(struct script_connection *connection)
{
	shutdown(connection->fd, SHUT_RDWR); /* a forked child may hold it open */
	close(connection->fd);
	g_byte_array_unref(connection->in);
	g_queue_clear_full(&connection->out, leaving_free);
	g_string_free(connection->keys, TRUE);
	parts_end(&connection->parts);
	chap_free(connection->chap);
	g_free(connection->initiator);
	g_free(connection);
}

static void drop_dead(struct script_target *target)
{
	for (struct script_connection **at = &target->connections; *at;) {
		struct script_connection *connection = *at;

		if (!connection->dead) {
			at = &connection->next;
			continue;
		}
		*at = connection->next;
		connection_free(connection);
	}
}

void connection_cut(struct script_connection *connection, enum script_cut how)
{
	/* dissolving the association sends a RST at once, whoever else holds the descriptor */
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	if (connection->dead || connection->silent)
		return;
	if (how == SCRIPT_RST)
		connect(connection->fd, &nowhere, sizeof(nowhere));
	else if (how == SCRIPT_FIN)
		shutdown(connection->fd, SHUT_RDWR);
	connection->dead = how != SCRIPT_SILENTLY;
	connection->silent = how == SCRIPT_SILENTLY;
	tasks_lose_connection(connection);
	if (connection->session)
		connection->session->connection = NULL;
	connection->session = NULL;
}

void connection_complain(struct script_connection *connection, const char *format, ...)
{
	struct script_target *target = connection->target;
	va_list args;

	va_start(args, format);
	vsnprintf(target->complaint, sizeof(target->complaint), format, args);
	va_end(args);
	target->complaints++;
	connection_cut(connection, SCRIPT_FIN);
}

/* ---- the thread ---- */

static const struct script_leaving *first_leaving(const struct script_connection *connection)
{
	return connection->out.head ? connection->out.head->data : NULL;
}

static bool wants_write(const struct script_connection *connection, int64_t now)
{
	const struct script_leaving *first = first_leaving(connection);

	return first && first->due <= now;
}

/* When there is something to do with it though no byte comes or goes. */
static int64_t connection_due(const struct script_connection *connection, int64_t now)
{
	const struct script_leaving *first = first_leaving(connection);
	int64_t due = first && first->due > now ? first->due : DUE_NEVER;

	return connection->paused_until > now ? MIN(due, connection->paused_until) : due;
}

static void serve(struct script_connection *connection, short revents)
{
	int64_t now = script_now();

	if (revents & (POLLIN | POLLHUP | POLLERR) && !connection_read(connection)) {
		connection_cut(connection, SCRIPT_FIN);
		return;
	}
	if (connection->paused_until <= now)
		connection_parse(connection);
	if (!connection->dead && !connection->silent && !connection_write(connection))
		connection_cut(connection, SCRIPT_FIN);
}

/* Fills in who is to be polled; returns their number. */
static unsigned prepare(struct script_target *target, GArray *polled, GPtrArray *served)
{
	int64_t now = script_now();

	g_array_set_size(polled, 0);
	g_ptr_array_set_size(served, 0);
	g_array_append_val(polled, ((struct pollfd){.fd = target->wake, .events = POLLIN}));
	g_array_append_val(polled, ((struct pollfd){.fd = target->listener, .events = POLLIN}));
	if (target->frozen)
		g_array_index(polled, struct pollfd, 1).fd = -1;
	for (struct script_connection *c = target->connections; c; c = c->next) {
		struct pollfd one = {.fd = c->fd};

		if (c->silent || target->frozen)
			continue;
		if (c->in->len < LIMIT_BEHIND)
			one.events |= POLLIN;
		if (wants_write(c, now))
			one.events |= POLLOUT;
		if (!one.events)
			one.fd = -1;
		g_array_append_val(polled, one);
		g_ptr_array_add(served, c);
	}
	return polled->len;
}

static int timeout_of(struct script_target *target, int64_t due)
{
	int64_t now = script_now();

	if (target->frozen)
		return -1;
	due = MIN(due, target->open_at);
	for (struct script_connection *c = target->connections; c; c = c->next)
		if (!c->silent)
			due = MIN(due, connection_due(c, now));
	if (due == DUE_NEVER)
		return -1;
	return (int)CLAMP(due - now, 0, 60000);
}

static void *target_thread(void *data)
{
	struct script_target *target = data;
	g_autoptr(GArray) polled = g_array_new(FALSE, FALSE, sizeof(struct pollfd));
	g_autoptr(GPtrArray) served = g_ptr_array_new();
	int64_t due = DUE_NEVER;
	uint64_t count;

	script_begin(target);
	while (!target->stop) {
		drop_dead(target);
		unsigned n = prepare(target, polled, served);
		int timeout = timeout_of(target, due);
		struct pollfd *fds = (struct pollfd *)(void *)polled->data;

		pthread_mutex_unlock(&target->lock);
		poll(fds, n, timeout);
		pthread_mutex_lock(&target->lock);
		if (fds[0].revents)
			eventfd_read(target->wake, &count);
		if (target->open_at <= script_now())
			target_listen(target, true);
		for (unsigned i = 0; i < served->len && !target->frozen; i++) {
			struct script_connection *connection = served->pdata[i];

			if (!connection->dead && !connection->silent)
				serve(connection, fds[2 + i].revents);
		}
		if (fds[1].revents && target->listener >= 0 && !target->frozen)
			accept_one(target);
		if (!target->frozen)
			due = tasks_run(target);
	}
	pthread_mutex_unlock(&target->lock);
	return NULL;
}

/* ---- start and stop ---- */

static void session_free(void *data)
{
	struct script_session *session = data;

	g_free(session->initiator);
	g_array_unref(session->attentions);
	g_free(session);
}

static struct script_target *target_new(const char *iqn)
{
	struct script_target *target = g_new0(struct script_target, 1);

	pthread_mutex_init(&target->lock, NULL);
	pthread_cond_init(&target->came, NULL);
	target->iqn = g_strdup(iqn);
	target->listener = -1;
	target->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	target->began_ms = script_now();
	target->open_at = DUE_NEVER;
	target->management = SCRIPT_TASKS_MANAGED;
	target->sessions = g_ptr_array_new_with_free_func(session_free);
	target->tasks = g_ptr_array_new_with_free_func(script_task_free);
	target->luns = g_hash_table_new_full(NULL, NULL, NULL, lun_free);
	target->addresses = g_ptr_array_new_with_free_func(g_free);
	target->rules = g_array_new(FALSE, TRUE, sizeof(struct script_rule));
	target->login_rules = g_array_new(FALSE, TRUE, sizeof(struct script_login_rule));
	target->records = g_array_new(FALSE, TRUE, sizeof(struct script_record));
	target->logins = g_array_new(FALSE, TRUE, sizeof(struct script_login));
	target->traffic = g_array_new(FALSE, FALSE, sizeof(struct script_traffic));
	target->steps = g_array_new(FALSE, FALSE, sizeof(struct script_login_step));
	target->seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	return target;
}

struct script_target *script_target_start_at(const char *iqn, uint16_t port)
{
	struct script_target *target = target_new(iqn);

	bool taken = false;

	for (int attempt = 0; !taken && attempt < 100; attempt++)
		taken = target_take_port(target, port ? port : free_port());
	if (!taken)
		g_error("script_target: cannot listen on port %u: %s", port, strerror(errno));
	script_target_set(target, &(struct script_parameters){0});
	if (pthread_create(&target->thread, NULL, target_thread, target) != 0)
		g_error("script_target: no thread");
	return target;
}

struct script_target *script_target_start(const char *iqn)
{
	return script_target_start_at(iqn, 0);
}

uint16_t script_target_port(const struct script_target *target)
{
	return target->port;
}

void script_target_stop(struct script_target *target)
{
	script_begin(target);
	target->stop = true;
	script_end(target);
	pthread_join(target->thread, NULL);
	target_listen(target, false);
	close(target->reserve);
	g_ptr_array_unref(target->tasks);
	for (struct script_connection *c = target->connections; c; c = c->next)
		c->dead = true;
	drop_dead(target);
	close(target->wake);
	g_ptr_array_unref(target->sessions);
	g_hash_table_unref(target->luns);
	g_ptr_array_unref(target->addresses);
	g_array_unref(target->rules);
	g_array_unref(target->login_rules);
	g_array_unref(target->records);
	g_array_unref(target->logins);
	traffic_free(target->traffic);
	g_array_unref(target->steps);
	g_clear_pointer(&target->listed, g_byte_array_unref);
	g_hash_table_unref(target->seen);
	g_free(target->iqn);
	pthread_cond_destroy(&target->came);
	pthread_mutex_destroy(&target->lock);
	g_free(target);
}

/* ---- ends ---- */

static void cut_all(struct script_target *target, enum script_cut how)
{
	for (struct script_connection *c = target->connections; c; c = c->next)
		connection_cut(c, how);
}

void script_target_drop(struct script_target *target, enum script_cut how)
{
	script_begin(target);
	cut_all(target, how);
	script_end(target);
}

void script_target_listen(struct script_target *target, bool wanted)
{
	script_begin(target);
	target_listen(target, wanted);
	script_end(target);
}

static gint by_number(gconstpointer a, gconstpointer b)
{
	return (GPOINTER_TO_UINT(a) > GPOINTER_TO_UINT(b)) -
	       (GPOINTER_TO_UINT(a) < GPOINTER_TO_UINT(b));
}

void script_target_reboot(struct script_target *target, struct script_reboot how)
{
	g_autoptr(GRand) dice = g_rand_new_with_seed(how.seed);
	g_autoptr(GList) numbers = NULL;

	script_begin(target);
	if (how.closed_ms) {
		target_listen(target, false);
		target->open_at = script_due(how.closed_ms);
	}
	g_ptr_array_set_size(target->tasks, 0);
	cut_all(target, how.how);
	/* in order, so that a seed means the same each time */
	numbers = g_list_sort(g_hash_table_get_keys(target->luns), by_number);
	for (GList *each = numbers; each; each = each->next)
		lun_lose_power(
		    g_hash_table_lookup(target->luns, each->data), how.some_survive ? dice : NULL);
	g_hash_table_remove_all(target->seen);
	target->rebooted = true;
	target->untold = how.untold;
	script_end(target);
}
