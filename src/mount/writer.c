/*
 * writer.c - who writes to a LUN, told by names of abstract sockets.
 *
 *   lunfs/writer/HASH        the one that is not shared
 *   lunfs/writer/HASH/s0..   the shared, each the first of these that is free
 *
 * A plain writer binds its name, which fails where another has it, and then looks whether one of
 * the shared names has a holder: in that order, so that of two that come at once one sees the
 * other. A shared writer that finds none free tries again each second.
 *
 * Who holds a name listens, and says "MOUNTPOINT<tab>FILE\n" to whoever connects. What comes from
 * there is believed only as far as the kernel vouches for it, the process and its user: anybody can
 * bind a name. It is waited for, on the loop's thread, within a budget, since a process that was
 * stopped does not answer, and one that means harm need not.
 */
#include "writer.h"

#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lunfs/loop.h"

#define SHARED_NAMES   16
#define RETRY_MS       1000
#define BACKLOG        16
#define ANSWERS        8 /* connections answered in one turn of the loop */
#define WAIT_MS        200
#define WAIT_BUDGET_MS 1000
#define WAIT_WINDOW_MS 10000
/* A holder may end between our bind and our connect, or not listen yet. */
#define TRIES    5
#define PAUSE_MS 10
/* Of what others say of themselves: a path, and its file. */
#define WORD_BYTES (2 * 4096)
#define WORD_SHOWN 300

struct writers {
	struct loop *loop;
	char *mountpoint, *sysfs;
	GHashTable *held;                   /* struct writer by key: not owned */
	int64_t waited_since_ms, waited_ms; /* of the budget */
};

struct writer {
	struct writers *writers;
	char *key;  /* what stands behind "lunfs/writer/": "HASH", or "HASH/s" where it is shared */
	char *word; /* what who connects is told */
	unsigned claims;
	bool shared;
	int fd, slot; /* -1: none of the shared names was free */
	GSource *watch, *retry;
};

struct writers *writers_new(struct loop *loop, const char *mountpoint, const char *sysfs)
{
	struct writers *writers = g_new0(struct writers, 1);

	writers->loop = loop;
	writers->mountpoint = g_strdup(mountpoint);
	writers->sysfs = g_strdup(sysfs ? sysfs : "/sys");
	writers->held = g_hash_table_new(g_str_hash, g_str_equal);
	return writers;
}

void writers_free(struct writers *writers)
{
	if (!writers)
		return;
	g_assert(g_hash_table_size(writers->held) == 0);
	g_hash_table_unref(writers->held);
	g_free(writers->mountpoint);
	g_free(writers->sysfs);
	g_free(writers);
}

/* ---- names ---- */

/* By what it is known; each part ends with a byte 0. */
static char *identity_hash(const struct lun_info *info, const char *target)
{
	g_autoptr(GString) identity = g_string_new(NULL);

	g_string_append_len(identity, info->wwid, (gssize)strlen(info->wwid) + 1);
	if (lun_identity_is_weak(info)) {
		g_autofree char *name = g_ascii_strdown(target, -1);

		g_string_append_printf(identity, "%s/%u", name, info->lun);
	} else {
		g_string_append(identity, info->serial);
	}
	return g_compute_checksum_for_data(
	    G_CHECKSUM_SHA256, (const guchar *)identity->str, identity->len);
}

static socklen_t name_address(struct sockaddr_un *address, const char *key, int slot)
{
	char number[8] = "";

	if (slot >= 0)
		g_snprintf(number, sizeof number, "%d", slot);
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	int length = g_snprintf(
	    address->sun_path + 1, sizeof address->sun_path - 1, "lunfs/writer/%s%s", key, number);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) + (socklen_t)length;
}

/* A socket that holds the name, or -errno. */
static int name_bind(const char *key, int slot)
{
	struct sockaddr_un address;
	socklen_t length = name_address(&address, key, slot);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	int error = errno;
	close(fd);
	return -error;
}

/* A connection to who holds the name, or -errno: ECONNREFUSED where nobody does, or does yet. */
static int name_connect(const char *key, int slot)
{
	struct sockaddr_un address;
	socklen_t length = name_address(&address, key, slot);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, length) == 0)
		return fd;
	int error = errno;
	close(fd);
	return -error;
}

/* ---- who has it ---- */

/* How long may still be waited. */
static int64_t wait_allowed(struct writers *writers)
{
	int64_t now_ms = clock_ms();

	if (writers->waited_since_ms == 0 || now_ms - writers->waited_since_ms >= WAIT_WINDOW_MS) {
		writers->waited_since_ms = now_ms;
		writers->waited_ms = 0;
	}
	return MIN(WAIT_MS, WAIT_BUDGET_MS - writers->waited_ms);
}

/* One line, without its end; NULL: none came in time. */
static char *word_read(struct writers *writers, int fd)
{
	int64_t began_ms = clock_ms(), end_ms = began_ms + wait_allowed(writers);
	char word[WORD_BYTES];
	size_t length = 0;
	char *end = NULL;

	while (!end && length < sizeof word) {
		struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
		int64_t left_ms = MAX(end_ms - clock_ms(), 0);

		if (poll(&poll_fd, 1, (int)left_ms) <= 0)
			break;
		ssize_t n = recv(fd, word + length, sizeof word - length, MSG_DONTWAIT);
		if (n <= 0)
			break;
		end = memchr(word + length, '\n', (size_t)n);
		length += (size_t)n;
	}
	writers->waited_ms += clock_ms() - began_ms;
	return end ? g_strndup(word, (gsize)(end - word)) : NULL;
}

/* What can be printed of it, and is not too long. */
static char *word_clean(const char *word)
{
	g_autofree char *valid = g_utf8_make_valid(word, -1);
	GString *clean = g_string_new(NULL);

	for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
		gunichar c = g_utf8_get_char(p);

		if (clean->len >= WORD_SHOWN) {
			g_string_append(clean, "...");
			break;
		}
		g_string_append_unichar(clean, g_unichar_isprint(c) ? c : '?');
	}
	return g_string_free(clean, FALSE);
}

/* "user joe", or "uid 1000": of this machine's own list, since a directory service may be behind
 * the network that is down. */
static char *user_name(uid_t uid)
{
	FILE *file = fopen("/etc/passwd", "re");
	char *name = NULL;

	for (struct passwd *user; file && !name && (user = fgetpwent(file));)
		if (user->pw_uid == uid)
			name = g_strdup_printf("user %s", user->pw_name);
	if (file)
		(void)fclose(file);
	return name ? name : g_strdup_printf("uid %u", uid);
}

/* " (pid 12, user joe)": what the kernel knows of who is at the other end. */
static char *peer_describe(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof peer;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		return g_strdup("");
	g_autofree char *user = user_name(peer.uid);
	/* 0: it is not of our process namespace */
	if (peer.pid == 0)
		return g_strdup_printf(" (%s)", user);
	return g_strdup_printf(" (pid %d, %s)", peer.pid, user);
}

/* Takes the connection. */
static char *holder_describe(struct writers *writers, int fd)
{
	g_autofree char *peer = peer_describe(fd);
	g_autofree char *word = word_read(writers, fd);

	close(fd);
	if (!word)
		return g_strdup_printf("another process%s, which does not say more", peer);
	char *tab = strchr(word, '\t');
	if (tab)
		*tab = '\0';
	g_autofree char *mountpoint = word_clean(word);
	g_autofree char *file = word_clean(tab ? tab + 1 : "");
	return g_strdup_printf(
	    "the lunfs mount on %s%s%s%s", mountpoint, peer, file[0] ? ", as " : "", file);
}

/* Who holds a shared name; NULL: nobody, but maybe we. */
static char *shared_holder(struct writers *writers, const char *hash)
{
	g_autofree char *key = g_strdup_printf("%s/s", hash);
	const struct writer *ours = g_hash_table_lookup(writers->held, key);

	for (int slot = 0; slot < SHARED_NAMES; slot++) {
		if (ours && ours->slot == slot)
			continue;
		int fd = name_connect(key, slot);
		if (fd >= 0)
			return holder_describe(writers, fd);
		if (fd == -EAGAIN) /* its backlog is full */
			return g_strdup("another process, which does not answer");
	}
	return NULL;
}

/* Binds the plain name; -1 where it is taken, and *who by whom. */
static int plain_bind(struct writers *writers, const char *hash, char **who)
{
	int fd = -EADDRINUSE;

	for (int i = 0; i < TRIES; i++) {
		fd = name_bind(hash, -1);
		if (fd != -EADDRINUSE)
			break;
		int holder = name_connect(hash, -1);
		if (holder >= 0) {
			*who = holder_describe(writers, holder);
			return -1;
		}
		if (wait_allowed(writers) <= 0)
			break;
		g_usleep(PAUSE_MS * 1000);
		writers->waited_ms += PAUSE_MS;
	}
	if (fd >= 0 && (*who = shared_holder(writers, hash))) {
		close(fd);
		return -1;
	}
	if (fd < 0)
		*who = fd == -EADDRINUSE
		           ? g_strdup("another process, which does not answer")
		           : g_strdup_printf("something unknown: it could not be claimed (%s)",
		                 g_strerror(-fd));
	return fd < 0 ? -1 : fd;
}

/* ---- holding ---- */

static void writer_asked(int fd, GIOCondition condition, void *data)
{
	const struct writer *writer = data;

	(void)condition;
	for (int i = 0; i < ANSWERS; i++) {
		int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (peer < 0)
			return;
		/* It fits into any socket's buffer; who does not read it is not waited for. */
		if (send(peer, writer->word, strlen(writer->word), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			errno = 0;
		close(peer);
	}
}

static void writer_hold(struct writer *writer, int fd, int slot)
{
	writer->fd = fd;
	writer->slot = slot;
	writer->watch = loop_watch(writer->writers->loop, fd, G_IO_IN, writer_asked, writer, NULL);
}

static bool shared_take(struct writer *writer)
{
	for (int slot = 0; slot < SHARED_NAMES; slot++) {
		int fd = name_bind(writer->key, slot);

		if (fd >= 0) {
			writer_hold(writer, fd, slot);
			return true;
		}
	}
	return false;
}

static void shared_retry(void *data)
{
	struct writer *writer = data;

	if (shared_take(writer))
		loop_remove(&writer->retry);
}

/* Neither a tab nor a newline may be in what is no end of it. */
static char *word_make(const char *mountpoint, const char *file)
{
	g_autofree char *plain_mountpoint = g_strdelimit(g_strdup(mountpoint), "\t\n", '?');
	g_autofree char *plain_file = g_strdelimit(g_strdup(file), "\t\n", '?');

	return g_strdup_printf("%s\t%s\n", plain_mountpoint, plain_file);
}

static struct writer *writer_new(
    struct writers *writers, const char *key, const char *file, bool shared)
{
	struct writer *writer = g_new0(struct writer, 1);

	writer->writers = writers;
	writer->key = g_strdup(key);
	writer->word = word_make(writers->mountpoint, file);
	writer->claims = 1;
	writer->shared = shared;
	writer->fd = writer->slot = -1;
	g_hash_table_insert(writers->held, writer->key, writer);
	return writer;
}

struct writer *writer_claim(struct writers *writers, const struct lun_info *info,
    const char *target, const char *file, bool shared, char **who)
{
	g_autofree char *hash = identity_hash(info, target);
	g_autofree char *key = g_strconcat(hash, shared ? "/s" : "", NULL);
	struct writer *writer = g_hash_table_lookup(writers->held, key);

	*who = NULL;
	if (writer) {
		writer->claims++;
		return writer;
	}
	if (shared) {
		writer = writer_new(writers, key, file, true);
		if (!shared_take(writer))
			writer->retry = loop_ticker(writers->loop, RETRY_MS, shared_retry, writer);
		return writer;
	}
	g_autofree char *device = writer_kernel_device(writers->sysfs, info, target);
	if (device) {
		*who = g_strdup_printf("the kernel's initiator, as %s", device);
		return NULL;
	}
	int fd = plain_bind(writers, hash, who);
	if (fd < 0)
		return NULL;
	writer = writer_new(writers, key, file, false);
	writer_hold(writer, fd, -1);
	return writer;
}

void writer_free(struct writer *writer)
{
	if (!writer || --writer->claims > 0)
		return;
	g_hash_table_remove(writer->writers->held, writer->key);
	loop_remove(&writer->watch);
	loop_remove(&writer->retry);
	if (writer->fd >= 0)
		close(writer->fd);
	g_free(writer->key);
	g_free(writer->word);
	g_free(writer);
}
