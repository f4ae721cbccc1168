/*
 * command.c - commands and functions that a test runs in other processes, as root or as another
 * user.
 *
 * Output is caught in memory files, not in pipes: a daemon that keeps its stderr open must not make
 * the test wait for it.
 */
#include "support/stage.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void become(uid_t uid)
{
	if (uid == 0)
		return;
	if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 ||
	    setresuid(uid, uid, uid) != 0)
		_exit(126);
}

/* A home of one's own: nothing is read from or written to the developer's. */
static void set_environment(const struct stage *stage, uid_t uid)
{
	g_autofree char *home = g_strdup_printf("%s/home-%u", stage->dir, uid);

	setenv("HOME", home, 1);
	setenv("LC_ALL", "C", 1);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	if (uid)
		setenv("XDG_RUNTIME_DIR", home, 1);
	else
		unsetenv("XDG_RUNTIME_DIR");
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("XDG_STATE_HOME");
	unsetenv("XDG_CACHE_HOME");
	if (chdir(stage->dir) != 0)
		_exit(126);
}

static G_GNUC_NORETURN void exec_shell(
    const struct stage *stage, uid_t uid, const char *line, int out, int err)
{
	int in = open("/dev/null", O_RDONLY);

	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	close_range(3, ~0u, 0);
	become(uid);
	set_environment(stage, uid);
	execl("/bin/sh", "sh", "-c", line, (char *)NULL);
	_exit(127);
}

static pid_t spawn(struct stage *stage, uid_t uid, const char *line, int out, int err)
{
	g_autofree char *home = g_strdup_printf("home-%u", uid);

	stage_directory(stage, home, uid);
	pid_t pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0)
		exec_shell(stage, uid, line, out, err);
	return pid;
}

int call_end(pid_t pid, double seconds)
{
	struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	int status, n;

	cr_assert(ended.fd >= 0);
	n = poll(&ended, 1, (int)(patience(seconds) * 1000));
	close(ended.fd);
	if (n == 0)
		return -1;
	cr_assert(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *take_text(struct stage *stage, int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);
	char *content = text(stage, "%*s", (int)size, "");

	ssize_t n = pread(fd, content, (size_t)size, 0);
	content[n > 0 ? n : 0] = '\0';
	close(fd);
	return content;
}

static struct result *run(struct stage *stage, uid_t uid, const char *line)
{
	struct result *result = g_new0(struct result, 1);
	int out = memfd_create("stdout", MFD_CLOEXEC), err = memfd_create("stderr", MFD_CLOEXEC);
	double start = seconds_now();
	pid_t pid = spawn(stage, uid, line, out, err);

	g_ptr_array_add(stage->owned, result);
	result->status = call_end(pid, 60);
	if (result->status < 0) {
		kill(pid, SIGKILL);
		result->timed_out = true;
		result->status = call_end(pid, 10);
	}
	result->seconds = seconds_now() - start;
	result->out = take_text(stage, out);
	result->err = take_text(stage, err);
	return result;
}

#define FORMAT(line, format)                                                                       \
	g_autofree char *line = NULL;                                                              \
	do {                                                                                       \
		va_list args;                                                                      \
		va_start(args, format);                                                            \
		line = g_strdup_vprintf(format, args);                                             \
		va_end(args);                                                                      \
	} while (0)

struct result *sh(struct stage *stage, const char *format, ...)
{
	FORMAT(line, format);
	return run(stage, 0, line);
}

struct result *sh_as(struct stage *stage, uid_t uid, const char *format, ...)
{
	FORMAT(line, format);
	return run(stage, uid, line);
}

char *must(struct stage *stage, const char *format, ...)
{
	FORMAT(line, format);
	struct result *result = run(stage, 0, line);

	cr_assert(result->status == 0, "%s: exit status %d%s\n%s%s", line, result->status,
	    result->timed_out ? " (timed out)" : "", result->out, result->err);
	return g_strchomp(result->out);
}

pid_t sh_start(
    struct stage *stage, uid_t uid, const char *out, const char *err, const char *format, ...)
{
	int out_fd = open(out ? out : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int err_fd = open(err ? err : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	cr_assert(out_fd >= 0 && err_fd >= 0);
	FORMAT(line, format);
	g_autofree char *replacing = g_strdup_printf("exec %s", line);
	pid_t pid = spawn(stage, uid, replacing, out_fd, err_fd);
	close(out_fd);
	close(err_fd);
	return pid;
}

pid_t call_start(uid_t uid, int (*fn)(void *data), void *data)
{
	fflush(NULL);
	pid_t pid = fork();

	cr_assert(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		become(uid);
		_exit(fn(data));
	}
	return pid;
}

int call_as(uid_t uid, int (*fn)(void *data), void *data)
{
	pid_t pid = call_start(uid, fn, data);
	int status = call_end(pid, 60);

	if (status < 0)
		kill(pid, SIGKILL);
	return status;
}
