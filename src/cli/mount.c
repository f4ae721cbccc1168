/*
 * mount.c - lunfs [mount] SOURCE MOUNTPOINT: in the background once the tree is ready.
 *
 * The process forks before there is a thread or a login (SAFETY.md 24). The parent waits on a pipe
 * for one byte, READY, or the line that says what failed, prints that, and is the exit status.
 * Where the target wants a secret that was not given, the line has SECRET before it: a person at
 * the terminal is asked, and it is tried again.
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

#define READY  '\0'
#define SECRET '\1'
#define TRIES  3

struct arguments {
	const char *source;
	GPtrArray *texts; /* behind -o; ended by NULL */
	struct plan *plan;
	char *mountpoint;
	bool foreground, debug, root_is_file;
	bool child; /* who mounts in the background */
};

static void arguments_clear(struct arguments *arguments)
{
	if (arguments->plan != NULL)
		plan_free(arguments->plan);
	g_ptr_array_unref(arguments->texts);
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
			g_ptr_array_add(arguments->texts, (gpointer)text);
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
	g_ptr_array_add(arguments->texts, NULL);
	arguments->source = words[0];
	arguments->mountpoint = g_strdup(words[1]);
	return true;
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
	if (arguments->root_is_file && !arguments->plan->one_lun) {
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "mountpoint %s is a file, and SOURCE does not name one LUN: add /LUN to a URL, "
		    "or "
		    "luns= to its section, or give a directory",
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

/* The parent's part: waits for the child's word; returns as run() does. */
static int wait_for_child(int fd, char *message, size_t size)
{
	size_t length = 0;
	ssize_t n;

	while (length < size - 1 && (n = read(fd, message + length, size - 1 - length)) != 0) {
		if (n > 0)
			length += (size_t)n;
		else if (errno != EINTR)
			break;
		if (length > 0 && message[0] == READY)
			return 0;
	}
	message[length] = '\0';
	if (length == 0)
		g_strlcpy(message, "the process ended without a word", size);
	if (message[0] != SECRET)
		return LUNFS_ERROR_FAILED;
	memmove(message, message + 1, length);
	return LUNFS_ERROR_SECRET;
}

static void leave_terminal(const char *mountpoint, const char *target)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_to_syslog(mountpoint, target);
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
		mounted_register(waiting->arguments->source, waiting->arguments->mountpoint, false);
		return;
	}
	prctl(PR_SET_PDEATHSIG, 0);
	const struct plan *plan = waiting->arguments->plan;
	const struct target_plan *one = plan->several ? NULL : g_ptr_array_index(plan->targets, 0);
	leave_terminal(waiting->arguments->mountpoint, one != NULL ? one->name : NULL);
	while (write(*fd, &(char){READY}, 1) < 0 && errno == EINTR)
		;
	close(*fd);
	*fd = -1;
}

/* One process's part: 0, or of enum lunfs_error with message set. */
static int run(struct arguments *arguments, int fd, char *message, size_t size)
{
	GError *error = NULL;
	struct mount mount = {
	    .plan = arguments->plan,
	    .mountpoint = arguments->mountpoint,
	    .root_is_file = arguments->root_is_file,
	    .debug = arguments->debug,
	};
	struct waiting waiting = {.fd = fd, .arguments = arguments};

	/* Reclaim may wait for us: then we must not wait for reclaim. Root only. */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	bool clean = mount_run(&mount, tell_ready, &waiting, &error);
	arguments->plan = mount.plan; /* a reload made another one */
	message[0] = '\0';
	if (error == NULL)
		return clean ? 0 : LUNFS_ERROR_FAILED;
	int code = error->code == LUNFS_ERROR_SECRET ? LUNFS_ERROR_SECRET : LUNFS_ERROR_FAILED;
	g_strlcpy(message, error->message, size);
	g_error_free(error);
	if (waiting.fd >= 0) {
		if (code == LUNFS_ERROR_SECRET)
			(void)!write(waiting.fd, &(char){SECRET}, 1);
		(void)!write(waiting.fd, message, strlen(message));
	}
	return code;
}

static int run_child(struct arguments *arguments, pid_t parent, int fd)
{
	char message[4096];

	/* Ctrl-C while it logs in is meant for us, too; until the tree is ready. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		return LUNFS_ERROR_FAILED;
	setsid();
	if (chdir("/") != 0)
		return LUNFS_ERROR_FAILED;
	return run(arguments, fd, message, sizeof message) == 0 ? 0 : LUNFS_ERROR_FAILED;
}

/* The parent returns as run() does; the child does not. */
static int run_in_background(struct arguments *arguments, char *message, size_t size)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0) {
		g_snprintf(message, size, "pipe: %s", g_strerror(errno));
		return LUNFS_ERROR_FAILED;
	}
	pid_t parent = getpid(), child = fork();
	if (child < 0) {
		g_snprintf(message, size, "fork: %s", g_strerror(errno));
		close(ends[0]);
		close(ends[1]);
		return LUNFS_ERROR_FAILED;
	}
	if (child == 0) {
		close(ends[0]);
		arguments->child = true;
		return run_child(arguments, parent, ends[1]);
	}
	close(ends[1]);
	int status = wait_for_child(ends[0], message, size);
	close(ends[0]);
	if (status == 0)
		mounted_register(arguments->source, arguments->mountpoint, true);
	return status;
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

	log_set_level(
	    arguments->debug ? LOG_LEVEL_DEBUG : levels[arguments->plan->options->log_level]);
}

/* Of one who gave no secret, and of one who mistyped it. */
static bool ask_secret(struct arguments *arguments, int tries, const char *message)
{
	struct plan *plan = arguments->plan;
	/* One that a portal reported is reported again at the next try. */
	struct target_plan *target = plan->portal == NULL && plan->targets->len == 1
	                                 ? g_ptr_array_index(plan->targets, 0)
	                                 : NULL;

	if (target == NULL || tries == 0 ||
	    (tries == TRIES && target->credentials->password != NULL && !target->asked))
		return false;
	if (target->credentials->password != NULL && isatty(STDIN_FILENO))
		fprintf(stderr, "lunfs: %s\n", message);
	return plan_ask_credentials(target);
}

static int mount_it(struct arguments *arguments)
{
	char message[4096] = "";
	int tries = TRIES, status;

	do {
		mount_protect_secrets(arguments->plan);
		status = arguments->foreground
		             ? run(arguments, -1, message, sizeof message)
		             : run_in_background(arguments, message, sizeof message);
		if (arguments->child)
			return status;
	} while (status == LUNFS_ERROR_SECRET && ask_secret(arguments, tries--, message));
	if (message[0] != '\0' && status != 0)
		fprintf(stderr, "lunfs: %s\n", message);
	return status == 0 ? 0 : LUNFS_ERROR_FAILED;
}

int cli_mount(int argc, char **argv)
{
	/* First of all: no child and no other target is to see a secret. */
	struct credentials *environment = credentials_from_environment();
	struct arguments arguments = {.texts = g_ptr_array_new()};
	GError *error = NULL;
	int status;

	if (arguments_parse(&arguments, argc, argv, &error))
		arguments.plan = plan_make(arguments.source,
		    (const char *const *)arguments.texts->pdata, environment, true, &error);
	credentials_free(environment);
	if (arguments.plan != NULL && mountpoint_check(&arguments, &error)) {
		set_log_level(&arguments);
		status = mount_it(&arguments);
	} else {
		status = cli_fail(error);
	}
	arguments_clear(&arguments);
	return status;
}
