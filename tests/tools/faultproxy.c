/*
 * faultproxy.c - a network that misbehaves by a script: `faultproxy [--listen PORT] HOST:PORT
 * [SCRIPT]`.
 *
 * It listens on 127.0.0.1, says 'PORT n' on stdout, and plays the script (support/fault_script.h):
 * a file, which must be right from the beginning to the end before anything starts; or stdin, line
 * by line as they come. What it does it tells on stderr. Behind the script it goes on passing,
 * until 'quit', SIGINT or SIGTERM. Status 2: the command line or a line of the script is wrong; 1:
 * the network's own trouble.
 */
#include "support/fault_script.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define USAGE "usage: faultproxy [--listen PORT] TARGET_HOST:PORT [SCRIPT]\n"

struct player {
	struct proxy *proxy;
	struct fault_script *script;
	const char *name; /* of the script */
	unsigned line;
	GString *pending; /* a line of stdin that is not whole */
	bool reading;     /* stdin */
};

static uint16_t port_of(const char *text)
{
	char *end;
	unsigned long port = strtoul(text, &end, 10);

	if (!g_ascii_isdigit(*text) || *end || port == 0 || port > 65535) {
		fprintf(stderr, "faultproxy: '%s' is no port\n", text);
		exit(2);
	}
	return (uint16_t)port;
}

/* Takes HOST:PORT apart; brackets around IPv6 addresses. */
static struct addrinfo *resolve(const char *target)
{
	const char *colon = strrchr(target, ':');
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;

	if (!colon || colon == target) {
		fprintf(stderr, "faultproxy: '%s' is no HOST:PORT\n", target);
		exit(2);
	}
	size_t length = (size_t)(colon - target);
	bool bracketed = length > 2 && target[0] == '[' && target[length - 1] == ']';
	g_autofree char *host = g_strndup(target + bracketed, length - 2 * (size_t)bracketed);
	port_of(colon + 1);
	int error = getaddrinfo(host, colon + 1, &hints, &found);
	if (error) {
		fprintf(stderr, "faultproxy: %s: %s\n", host, gai_strerror(error));
		exit(1);
	}
	return found;
}

static void add_line(struct player *player, const char *text)
{
	char *error = NULL;

	player->line++;
	if (fault_script_add(player->script, text, &error))
		return;
	fprintf(stderr, "faultproxy: %s:%u: %s\n", player->name, player->line, error);
	exit(2);
}

static void add_file(struct player *player)
{
	g_autofree char *text = NULL;
	g_autoptr(GError) error = NULL;

	if (!g_file_get_contents(player->name, &text, NULL, &error)) {
		fprintf(stderr, "faultproxy: %s\n", error->message);
		exit(2);
	}
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line; line++)
		add_line(player, *line);
}

static void add_stdin(struct player *player)
{
	char bytes[4096], *newline;
	ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n > 0)
		g_string_append_len(player->pending, bytes, n);
	while ((newline = strchr(player->pending->str, '\n'))) {
		*newline = '\0';
		add_line(player, player->pending->str);
		g_string_erase(player->pending, 0, newline + 1 - player->pending->str);
	}
	if (n > 0)
		return;
	player->reading = false;
	add_line(player, player->pending->str);
}

static void wait_until(struct pollfd polled[2], int64_t until)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	int64_t span = MAX(until - ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec), 0);
	struct timespec timeout = {span / 1000000000, span % 1000000000};
	polled[0].revents = polled[1].revents = 0;
	ppoll(polled, 2, until == INT64_MAX ? NULL : &timeout, NULL);
}

static void play(struct player *player, int signals)
{
	int64_t until;

	while ((until = fault_script_play(player->script, player->proxy)) >= 0) {
		struct pollfd polled[] = {{.fd = signals, .events = POLLIN},
		    {.fd = player->reading ? STDIN_FILENO : -1, .events = POLLIN}};

		wait_until(polled, until);
		if (polled[0].revents)
			return;
		if (polled[1].revents)
			add_stdin(player);
	}
}

/* Those that are dropped keep their descriptors for long. */
static void want_many_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	uint16_t port = 0;
	sigset_t ends;

	if (argc > 2 && strcmp(argv[1], "--listen") == 0) {
		port = port_of(argv[2]);
		argc -= 2;
		argv += 2;
	}
	if (argc < 2 || argc > 3 || argv[1][0] == '-') {
		fputs(USAGE, stderr);
		return 2;
	}
	setvbuf(stderr, NULL, _IOLBF, 0);
	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	want_many_descriptors();
	bool from_file = argc == 3 && strcmp(argv[2], "-") != 0;
	struct player player = {.script = fault_script_new(stderr),
	    .name = from_file ? argv[2] : "stdin",
	    .pending = g_string_new(NULL),
	    .reading = !from_file};
	if (from_file)
		add_file(&player);
	struct addrinfo *target = resolve(argv[1]);
	player.proxy = proxy_open(port, target->ai_addr, target->ai_addrlen);
	freeaddrinfo(target);
	if (!player.proxy) {
		fprintf(stderr, "faultproxy: cannot listen: %s\n", g_strerror(errno));
		return 1;
	}
	printf("PORT %u\n", proxy_port(player.proxy));
	fflush(stdout);
	int signals = signalfd(-1, &ends, SFD_CLOEXEC);
	play(&player, signals);
	close(signals);
	proxy_stop(player.proxy);
	fault_script_free(player.script);
	g_string_free(player.pending, TRUE);
	return 0;
}
