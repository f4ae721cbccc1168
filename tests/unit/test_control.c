/*
 * test_control.c - the control socket with clients that read slowly, or not at all.
 */
#include "../../src/mount/control.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lunfs/loop.h"

#define MIB ((size_t)1 << 20)

/* One that answers "large" with a text, and "rows" with a thousand lines. */
struct server {
	struct loop *loop;
	struct control *control;
	char *directory, *path, *text;
	unsigned requests;
};

static void answer(struct control_client *client, const char *command, void *data)
{
	struct server *server = data;

	server->requests++;
	if (strcmp(command, "large") == 0) {
		control_reply(client, "done", "error", "", "text", server->text, NULL);
		return;
	}
	for (unsigned i = 0; i < 1000; i++) {
		g_autofree char *number = g_strdup_printf("%u", i);

		control_reply(client, "row", "number", number, "text", server->text, NULL);
	}
	control_reply(client, "done", "error", "", NULL);
}

static struct server server_new(size_t length)
{
	struct server server = {.loop = loop_new(), .directory = g_dir_make_tmp(NULL, NULL)};

	server.path = g_build_filename(server.directory, "socket", NULL);
	server.text = g_malloc0(length + 1);
	for (size_t i = 0; i < length; i++)
		server.text[i] = "abcdefgh \n\"\\"[i % 12];
	return server;
}

static void server_open(struct server *server)
{
	server->control = control_new(server->loop, server->path, answer, server);
	cr_assert_not_null(server->control);
}

static void server_free(struct server *server)
{
	control_free(server->control);
	loop_free(server->loop);
	g_rmdir(server->directory);
	g_free(server->directory);
	g_free(server->path);
	g_free(server->text);
}

static void turn(struct server *server)
{
	while (g_main_context_iteration(loop_context(server->loop), FALSE))
		;
}

static int connect_to(struct server *server)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	g_strlcpy(address.sun_path, server->path, sizeof address.sun_path);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

static void ask(struct server *server, int fd, const char *command)
{
	g_autofree char *line = g_strdup_printf("{\"command\": \"%s\"}\n", command);

	cr_assert_eq(send(fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
	turn(server);
}

/* All that comes until the line with the event "done"; a bit at a time. NULL: it ended before. */
static GString *read_slowly(struct server *server, int fd)
{
	GString *said = g_string_new(NULL);
	char bytes[10000];

	for (unsigned idle = 0; idle < 1000;) {
		ssize_t n = recv(fd, bytes, sizeof bytes, 0);

		if (n == 0)
			break;
		idle = n > 0 ? 0 : idle + 1;
		g_string_append_len(said, bytes, MAX(n, 0));
		if (g_str_has_suffix(said->str, "}\n") && strstr(said->str, "\"done\""))
			return said;
		turn(server);
	}
	g_string_free(said, TRUE);
	return NULL;
}

Test(control, an_answer_larger_than_the_sockets_buffer_comes_whole)
{
	struct server server = server_new(3 * MIB);

	server_open(&server);
	int fd = connect_to(&server);
	for (unsigned i = 0; i < 3; i++) {
		ask(&server, fd, "large");
		GString *said = read_slowly(&server, fd);
		cr_assert_not_null(said);
		g_autoptr(GHashTable) line = control_parse(said->str);
		cr_assert_not_null(line);
		cr_assert_str_eq(g_hash_table_lookup(line, "text"), server.text);
		g_string_free(said, TRUE);
	}
	close(fd);
	turn(&server);
	server_free(&server);
}

Test(control, lines_stay_whole_and_in_order)
{
	struct server server = server_new(1000);

	server_open(&server);
	int fd = connect_to(&server);
	ask(&server, fd, "rows");
	GString *said = read_slowly(&server, fd);
	cr_assert_not_null(said);
	g_auto(GStrv) lines = g_strsplit(said->str, "\n", -1);
	cr_assert_eq(g_strv_length(lines), 1002);
	for (unsigned i = 0; i < 1000; i++) {
		g_autoptr(GHashTable) line = control_parse(lines[i]);
		g_autofree char *number = g_strdup_printf("%u", i);

		cr_assert_not_null(line, "%s", lines[i]);
		cr_assert_str_eq(g_hash_table_lookup(line, "number"), number);
		cr_assert_str_eq(g_hash_table_lookup(line, "text"), server.text);
	}
	g_string_free(said, TRUE);
	close(fd);
	turn(&server);
	server_free(&server);
}

Test(control, who_never_reads_is_hung_up_on_and_others_are_served)
{
	struct server server = server_new(MIB);
	bool open = true;

	server_open(&server);
	int deaf = connect_to(&server), other = connect_to(&server);
	for (unsigned i = 0; i < 100 && open; i++) {
		static const char line[] = "{\"command\": \"large\"}\n";

		open = send(deaf, line, strlen(line), MSG_NOSIGNAL) > 0;
		turn(&server);
	}
	cr_assert(!open, "it still stands after 100 MiB");
	cr_assert_leq(server.requests, 20);
	ask(&server, other, "large");
	GString *said = read_slowly(&server, other);
	cr_assert_not_null(said);
	g_string_free(said, TRUE);
	close(deaf);
	close(other);
	turn(&server);
	server_free(&server);
}

Test(control, a_client_that_goes_with_its_answer_half_read_does_no_harm)
{
	struct server server = server_new(MIB);

	server_open(&server);
	for (unsigned i = 0; i < 10; i++) {
		int fd = connect_to(&server);

		ask(&server, fd, "rows"[i % 4] == 'r' ? "large" : "rows");
		close(fd);
		turn(&server);
	}
	int fd = connect_to(&server);
	ask(&server, fd, "large");
	server_free(&server); /* with an answer under way */
	close(fd);
}

Test(control, bytes_that_are_no_UTF8_do_not_spoil_a_line)
{
	struct server server = server_new(40);

	server.text[3] = (char)0xff;
	server.text[5] = 0x1b;
	server_open(&server);
	int fd = connect_to(&server);
	ask(&server, fd, "large");
	GString *said = read_slowly(&server, fd);
	g_autoptr(GHashTable) line = control_parse(said->str);
	cr_assert_not_null(line, "%s", said->str);
	g_string_free(said, TRUE);
	close(fd);
	turn(&server);
	server_free(&server);
}
