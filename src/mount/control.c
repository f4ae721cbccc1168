/*
 * control.c - the control socket: where it is, who may use it, and its lines.
 *
 * The socket stands in a directory that only its owner can enter; root reaches every mount. Lines
 * are JSON objects of strings, which GVariant's text form reads as it stands. A client is never
 * waited for: what its socket does not take is kept, up to a bound, and follows when it reads.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"

#define REQUEST_MAX 4096u
/* The status of a mount of many LUNs is larger than a socket's buffer; who does not read at all is
 * hung up on. */
#define UNSENT_MAX (16u << 20)

struct control_client {
	struct control *control; /* NULL once the mount ends */
	int fd;
	unsigned references;
	GSource *watch, *writer; /* writer: while something is unsent */
	GByteArray *unsent;
	char request[REQUEST_MAX];
	size_t length;
};

struct control {
	struct loop *loop;
	char *path;
	int fd;
	GSource *watch;
	GPtrArray *clients;
	control_request_fn fn;
	void *data;
};

/* ---- lines ---- */

static void append_string(GString *line, const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1); /* else the line cannot be read */

	g_string_append_c(line, '"');
	for (const char *c = valid; *c != '\0'; c++) {
		if (*c == '"' || *c == '\\')
			g_string_append_c(line, '\\');
		if (*c == '\n')
			g_string_append(line, "\\n");
		else if ((unsigned char)*c >= ' ')
			g_string_append_c(line, *c);
	}
	g_string_append_c(line, '"');
}

GHashTable *control_parse(const char *line)
{
	g_autoptr(GVariant) object =
	    g_variant_parse(G_VARIANT_TYPE("a{ss}"), line, NULL, NULL, NULL);
	GHashTable *table;
	GVariantIter pairs;
	const char *name, *value;

	if (object == NULL)
		return NULL;
	table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	g_variant_iter_init(&pairs, object);
	while (g_variant_iter_next(&pairs, "{&s&s}", &name, &value))
		g_hash_table_insert(table, g_strdup(name), g_strdup(value));
	return table;
}

/* ---- clients ---- */

struct control_client *control_client_ref(struct control_client *client)
{
	client->references++;
	return client;
}

void control_client_unref(struct control_client *client)
{
	if (--client->references > 0)
		return;
	g_byte_array_unref(client->unsent);
	close(client->fd);
	g_free(client);
}

static void client_hang_up(gpointer data)
{
	struct control_client *client = data;

	loop_remove(&client->watch);
	loop_remove(&client->writer);
	client->control = NULL;
	shutdown(client->fd, SHUT_RDWR);
	control_client_unref(client);
}

static void client_writable(int fd, GIOCondition condition, void *data);

/* Sends what it takes now; the rest waits. False: it is gone, or does not read. */
static bool client_send(struct control_client *client)
{
	GByteArray *unsent = client->unsent;
	ssize_t n = 0;

	while (unsent->len > 0 &&
	       (n = send(client->fd, unsent->data, unsent->len, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
		g_byte_array_remove_range(unsent, 0, (guint)n);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	if (unsent->len == 0)
		loop_remove(&client->writer);
	else if (client->writer == NULL)
		client->writer = loop_watch(
		    client->control->loop, client->fd, G_IO_OUT, client_writable, client, NULL);
	return unsent->len <= UNSENT_MAX;
}

static void client_writable(int fd, GIOCondition condition, void *data)
{
	struct control_client *client = data;

	(void)fd;
	(void)condition;
	if (!client_send(client))
		g_ptr_array_remove(client->control->clients, client);
}

void control_reply(struct control_client *client, const char *event, ...)
{
	g_autoptr(GString) line = g_string_new("{\"event\": ");
	const char *name;
	va_list pairs;

	if (client->control == NULL)
		return;
	append_string(line, event);
	va_start(pairs, event);
	while ((name = va_arg(pairs, const char *)) !=
	       NULL) { // NOLINT(clang-analyzer-valist.Uninitialized)
		g_string_append(line, ", ");
		append_string(line, name);
		g_string_append(line, ": ");
		append_string(line, va_arg(pairs, const char *));
	}
	va_end(pairs);
	g_string_append(line, "}\n");
	g_byte_array_append(client->unsent, (const guint8 *)line->str, (guint)line->len);
	if (!client_send(client))
		g_ptr_array_remove(client->control->clients, client);
}

void control_tell_all(struct control *control, const char *event, const char *error)
{
	/* A client that fails leaves the list. */
	for (unsigned i = control != NULL ? control->clients->len : 0; i > 0; i--)
		control_reply(
		    g_ptr_array_index(control->clients, i - 1), event, "error", error, NULL);
}

static void client_take_line(struct control_client *client, char *line)
{
	g_autoptr(GHashTable) request = control_parse(line);
	const char *command = request != NULL ? g_hash_table_lookup(request, "command") : NULL;

	if (command != NULL)
		client->control->fn(client, command, client->control->data);
	else
		control_reply(client, "done", "error", "not a request", NULL);
}

static void client_ready(int fd, GIOCondition condition, void *data)
{
	struct control_client *client = data;
	ssize_t n = recv(fd, client->request + client->length,
	    sizeof client->request - client->length, MSG_DONTWAIT);
	char *end;

	(void)condition;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		client->length += (size_t)n;
	if (n <= 0 || (client->length == sizeof client->request &&
	                  memchr(client->request, '\n', client->length) == NULL)) {
		g_ptr_array_remove(client->control->clients, client);
		return;
	}
	control_client_ref(client);
	while (client->control != NULL &&
	       (end = memchr(client->request, '\n', client->length)) != NULL) {
		size_t used = (size_t)(end + 1 - client->request);

		*end = '\0';
		client_take_line(client, client->request);
		client->length -= used;
		memmove(client->request, client->request + used, client->length);
	}
	control_client_unref(client);
}

static void control_accept(int fd, GIOCondition condition, void *data)
{
	struct control *control = data;
	struct control_client *client;
	int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)condition;
	if (connection < 0)
		return;
	client = g_new0(struct control_client, 1);
	client->control = control;
	client->fd = connection;
	client->references = 1;
	client->unsent = g_byte_array_new();
	client->watch = loop_watch(control->loop, connection, G_IO_IN, client_ready, client, NULL);
	g_ptr_array_add(control->clients, client);
}

/* ---- the socket ---- */

/* Where the mounts of a user have their sockets. */
static char *control_directory(uid_t uid)
{
	const char *runtime = g_getenv("XDG_RUNTIME_DIR");
	g_autofree char *usual = g_strdup_printf("/run/user/%u", (unsigned)uid);

	if (uid == 0)
		return g_strdup("/run/lunfs");
	if (uid == geteuid() && runtime != NULL && g_path_is_absolute(runtime))
		return g_build_filename(runtime, "lunfs", NULL);
	if (g_file_test(usual, G_FILE_TEST_IS_DIR))
		return g_build_filename(usual, "lunfs", NULL);
	return g_strdup_printf("/tmp/lunfs-%u", (unsigned)uid);
}

char *control_path(unsigned device, uid_t uid)
{
	g_autofree char *directory = control_directory(uid);

	return g_strdup_printf("%s/%u", directory, device);
}

static bool control_address(const char *path, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	return g_strlcpy(address->sun_path, path, sizeof address->sun_path) <
	       sizeof address->sun_path;
}

int control_connect(const struct mounted *mounted)
{
	g_autofree char *path = control_path(mounted->device, mounted->uid);
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t size = sizeof peer;
	int fd;

	if (!control_address(path, &address))
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* In /tmp somebody else may have been faster: only the mounter's process knows what is
	 * safe. */
	if (fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
	                   getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
	                   peer.uid != mounted->uid)) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool control_make_directory(const char *path)
{
	g_autofree char *directory = g_path_get_dirname(path);
	struct stat stat;

	if (mkdir(directory, 0700) != 0 && errno != EEXIST)
		return false;
	/* In /tmp somebody else may have been faster. */
	if (lstat(directory, &stat) != 0)
		return false;
	if (!S_ISDIR(stat.st_mode) || stat.st_uid != geteuid() || (stat.st_mode & 077) != 0) {
		errno = EPERM;
		return false;
	}
	return true;
}

static int control_listen(const char *path)
{
	struct sockaddr_un address;
	int fd;

	errno = ENAMETOOLONG;
	if (!control_address(path, &address) || !control_make_directory(path))
		return -1;
	/* The device number is ours: who left a socket there is gone. */
	unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 16) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

struct control *control_new(struct loop *loop, const char *path, control_request_fn fn, void *data)
{
	int fd = control_listen(path);

	if (fd < 0) {
		log_warning("no control socket at %s: %s: 'lunfs umount' and 'lunfs status' will "
		            "not reach this mount",
		    path, g_strerror(errno));
		return NULL;
	}
	struct control *control = g_new0(struct control, 1);
	*control = (struct control){
	    .loop = loop,
	    .path = g_strdup(path),
	    .fd = fd,
	    .watch = loop_watch(loop, fd, G_IO_IN, control_accept, control, NULL),
	    .clients = g_ptr_array_new_with_free_func(client_hang_up),
	    .fn = fn,
	    .data = data,
	};
	return control;
}

void control_free(struct control *control)
{
	if (control == NULL)
		return;
	loop_remove(&control->watch);
	g_ptr_array_unref(control->clients);
	unlink(control->path);
	close(control->fd);
	g_free(control->path);
	g_free(control);
}
