/*
 * mount.c - lunfs [mount] SOURCE MOUNTPOINT: in the background once the tree is ready.
 *
 * The process forks before there is a thread or a login (SAFETY.md 24). The parent waits on a pipe
 * for one byte, READY, or the line that says what failed, prints that, and is the exit status.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "lunfs/log.h"
#include "lunfs/mount.h"

#define READY '\0'

struct arguments {
	struct source *source;
	struct options *options;
	char *mountpoint;
	bool foreground, debug, root_is_file;
};

static void arguments_clear(struct arguments *arguments)
{
	source_free(arguments->source);
	options_free(arguments->options);
	g_free(arguments->mountpoint);
}

/* ---- the command line ---- */

static bool arguments_parse(struct arguments *arguments, int argc, char **argv, GError **error)
{
	const char *words[2] = {NULL};
	int count = 0;

	/* Options may stand anywhere; "-o" is given again and again by scripts. */
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "-f") == 0) {
			arguments->foreground = true;
		} else if (strcmp(argv[i], "-d") == 0) {
			arguments->foreground = arguments->debug = true;
		} else if (strncmp(argv[i], "-o", 2) == 0) {
			const char *text = argv[i][2] != '\0' ? argv[i] + 2
			                   : i + 1 < argc     ? argv[++i]
			                                      : NULL;

			if (text == NULL) {
				g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_USAGE,
				    "-o needs an option behind it");
				return false;
			}
			if (!options_parse(arguments->options, text, error))
				return false;
		} else if (argv[i][0] == '-' || count == 2) {
			g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_USAGE,
			    "what is '%s'? See 'lunfs --help'", argv[i]);
			return false;
		} else {
			words[count++] = argv[i];
		}
	}
	if (count < 2) {
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_USAGE,
		    "%s is missing: lunfs SOURCE MOUNTPOINT; see 'lunfs --help'",
		    count == 0 ? "SOURCE" : "MOUNTPOINT");
		return false;
	}
	arguments->source = source_parse(words[0], error);
	arguments->mountpoint = g_strdup(words[1]);
	return arguments->source != NULL;
}

/* Where a process died its mount is still there, and in the way. */
static bool detach_dead_mount(const char *mountpoint, GError **error)
{
	struct mounted *mounted = mounted_find(mountpoint);
	bool done;

	if (mounted == NULL) {
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "%s: a file system whose process died is mounted there: unmount it first",
		    mountpoint);
		return false;
	}
	fprintf(stderr, "lunfs: %s: detaching the mount of a lunfs that died\n", mountpoint);
	done = mounted_detach(mounted, true, error);
	mounted_free(mounted);
	return done;
}

/* Before any login: is there something to mount on? */
static bool mountpoint_check(struct arguments *arguments, GError **error)
{
	struct stat stat_buffer;

	if (mounted_is_dead(arguments->mountpoint) &&
	    !detach_dead_mount(arguments->mountpoint, error))
		return false;
	if (stat(arguments->mountpoint, &stat_buffer) != 0) {
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED, "mountpoint %s: %s%s",
		    arguments->mountpoint, g_strerror(errno),
		    errno == ENOENT ? ": make it first, with mkdir" : "");
		return false;
	}
	arguments->root_is_file = S_ISREG(stat_buffer.st_mode);
	if (!arguments->root_is_file && !S_ISDIR(stat_buffer.st_mode)) {
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "mountpoint %s is neither a directory nor a file", arguments->mountpoint);
		return false;
	}
	if (arguments->root_is_file && arguments->source->lun < 0) {
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "mountpoint %s is a file, and SOURCE names no LUN: add /LUN to it, or give a "
		    "directory",
		    arguments->mountpoint);
		return false;
	}
	char *real = realpath(arguments->mountpoint, NULL);
	if (real != NULL) {
		g_free(arguments->mountpoint);
		arguments->mountpoint = g_strdup(real);
		free(real);
	}
	return true;
}

/* ---- in the background ---- */

/* The parent's part: waits for the child's word. */
static int wait_for_child(int fd)
{
	char message[4096];
	size_t length = 0;
	ssize_t n;

	while (length < sizeof message - 1 &&
	       (n = read(fd, message + length, sizeof message - 1 - length)) != 0) {
		if (n > 0)
			length += (size_t)n;
		else if (errno != EINTR)
			break;
		if (length > 0 && message[0] == READY)
			return 0;
	}
	message[length] = '\0';
	fprintf(stderr, "lunfs: %s\n", length > 0 ? message : "the process ended without a word");
	return LUNFS_ERROR_FAILED;
}

static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_to_syslog();
	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
}

/* Who waits for the mount. */
struct waiting {
	int fd; /* the pipe to the parent, or -1 in the foreground */
	const struct arguments *arguments;
};

/* The tree is ready. */
static void tell_ready(void *data)
{
	struct waiting *waiting = data;
	int *fd = &waiting->fd;

	if (*fd < 0) {
		mounted_register(
		    waiting->arguments->source->text, waiting->arguments->mountpoint, false);
		return;
	}
	prctl(PR_SET_PDEATHSIG, 0);
	leave_terminal();
	while (write(*fd, &(char){READY}, 1) < 0 && errno == EINTR)
		;
	close(*fd);
	*fd = -1;
}

static int tell_error(int fd, GError *error)
{
	if (fd < 0)
		return cli_fail(error);
	(void)!write(fd, error->message, strlen(error->message));
	g_error_free(error);
	return LUNFS_ERROR_FAILED;
}

/*
 * Secrets stay out of core dumps. The kernel then also hides the process from debuggers, which
 * LeakSanitizer is one of.
 */
static void protect_secrets(const struct credentials *credentials)
{
#ifndef __SANITIZE_ADDRESS__
	if (credentials->password != NULL)
		prctl(PR_SET_DUMPABLE, 0);
#else
	(void)credentials;
#endif
}

static int run(const struct arguments *arguments, const struct credentials *credentials, int fd)
{
	GError *error = NULL;
	g_autofree char *initiator_name =
	    initiator_name_get(arguments->options->initiator_name, &error);

	if (initiator_name == NULL)
		return tell_error(fd, error);
	const struct mount mount = {
	    .source = arguments->source,
	    .options = arguments->options,
	    .credentials = credentials,
	    .initiator_name = initiator_name,
	    .mountpoint = arguments->mountpoint,
	    .root_is_file = arguments->root_is_file,
	    .debug = arguments->debug,
	};
	protect_secrets(credentials);
	/* Reclaim may wait for us: then we must not wait for reclaim. Root only. */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	struct waiting waiting = {.fd = fd, .arguments = arguments};
	bool clean = mount_run(&mount, tell_ready, &waiting, &error);
	if (error != NULL)
		return tell_error(waiting.fd, error);
	return clean ? 0 : LUNFS_ERROR_FAILED;
}

static int run_in_background(
    const struct arguments *arguments, const struct credentials *credentials)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return cli_fail(
		    g_error_new(LUNFS_ERROR, LUNFS_ERROR_FAILED, "pipe: %s", g_strerror(errno)));
	pid_t parent = getpid(), child = fork();
	if (child < 0)
		return cli_fail(
		    g_error_new(LUNFS_ERROR, LUNFS_ERROR_FAILED, "fork: %s", g_strerror(errno)));
	if (child > 0) {
		close(ends[1]);
		int status = wait_for_child(ends[0]);
		close(ends[0]);
		if (status == 0)
			mounted_register(arguments->source->text, arguments->mountpoint, true);
		return status;
	}
	close(ends[0]);
	/* Ctrl-C while it logs in is meant for us, too; until the tree is ready. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		return LUNFS_ERROR_FAILED;
	setsid();
	if (chdir("/") != 0)
		return LUNFS_ERROR_FAILED;
	return run(arguments, credentials, ends[1]);
}

static void set_log_level(const struct arguments *arguments)
{
	static const enum log_level levels[] = {
	    [LOG_AS_EVER] = LOG_LEVEL_INFO,
	    [LOG_ERRORS] = LOG_LEVEL_ERROR,
	    [LOG_WARNINGS] = LOG_LEVEL_WARNING,
	    [LOG_INFOS] = LOG_LEVEL_INFO,
	    [LOG_DEBUGS] = LOG_LEVEL_DEBUG,
	};

	log_set_level(arguments->debug ? LOG_LEVEL_DEBUG : levels[arguments->options->log_level]);
}

int cli_mount(int argc, char **argv)
{
	/* First of all: no child and no other target is to see a secret. */
	struct credentials *environment = credentials_from_environment();
	struct arguments arguments = {.options = options_new()};
	struct credentials *credentials = NULL;
	GError *error = NULL;
	int status;

	if (arguments_parse(&arguments, argc, argv, &error) && mountpoint_check(&arguments, &error))
		credentials = credentials_resolve(
		    arguments.options, arguments.source->user, environment, &error);
	credentials_free(environment);
	if (credentials == NULL) {
		status = cli_fail(error);
	} else {
		set_log_level(&arguments);
		status = arguments.foreground ? run(&arguments, credentials, -1)
		                              : run_in_background(&arguments, credentials);
		credentials_free(credentials);
	}
	arguments_clear(&arguments);
	return status;
}
