/*
 * stage.c - a private mount namespace with a scratch directory, and the janitor that clears it.
 */
#include "support/stage.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

char *text(struct stage *stage, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *made = g_strdup_vprintf(format, args);
	va_end(args);
	g_ptr_array_add(stage->owned, made);
	return made;
}

double seconds_now(void)
{
	return (double)g_get_monotonic_time() / 1e6;
}

static unsigned long scale(void)
{
	const char *given = getenv("LUNFS_TEST_SCALE");
	unsigned long value = given ? strtoul(given, NULL, 10) : 1;

	return value ? value : 1;
}

unsigned long scaled(unsigned long count)
{
	unsigned long less = MAX(count / scale(), MIN(count, 2));

	if (less < count)
		fprintf(stderr, "LUNFS_TEST_SCALE=%lu: %lu instead of %lu\n", scale(), less, count);
	return less;
}

double patience(double seconds)
{
	return scale() > 1 ? seconds * 4 : seconds;
}

bool await(double seconds, bool (*check)(void *data), void *data)
{
	double end = seconds_now() + patience(seconds);

	while (!check(data)) {
		if (seconds_now() > end)
			return false;
		g_usleep(5000);
	}
	return true;
}

/* ---- the janitor ---- */

/* "mnt:[4026531841]" into name; false where there is no such process. */
static bool namespace_of(int pid, char name[64])
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	ssize_t n = readlink(path, name, 63);
	if (n <= 0)
		return false;
	name[n] = '\0';
	return true;
}

pid_t stage_next_process(pid_t after)
{
	char mine[64], theirs[64];
	DIR *proc = opendir("/proc");
	pid_t found = 0;

	if (!proc || !namespace_of(getpid(), mine))
		return 0;
	for (struct dirent *entry; (entry = readdir(proc));) {
		pid_t pid = atoi(entry->d_name);

		if (pid > after && (!found || pid < found) && pid != getpid() &&
		    namespace_of(pid, theirs) && strcmp(mine, theirs) == 0)
			found = pid;
	}
	closedir(proc);
	return found;
}

/* Sends SIGKILL to all others in this namespace; how many there were. */
static unsigned kill_namespace(void)
{
	unsigned found = 0;

	for (pid_t pid = 0; (pid = stage_next_process(pid)); found++)
		kill(pid, SIGKILL);
	return found;
}

static void clear_loop_devices(const char *dir)
{
	for (int i = 0; i < 64; i++) {
		struct loop_info64 info;
		char path[32];

		snprintf(path, sizeof(path), "/dev/loop%d", i);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (ioctl(fd, LOOP_GET_STATUS64, &info) == 0 &&
		    strncmp((char *)info.lo_file_name, dir, strlen(dir)) == 0)
			ioctl(fd, LOOP_CLR_FD, 0);
		close(fd);
	}
}

/* Mounts whose path starts with dir and whose type starts with type, the latest first. */
static void detach_mounts(const char *dir, const char *type)
{
	g_autofree char *mounts = NULL;

	if (!g_file_get_contents("/proc/self/mounts", &mounts, NULL, NULL))
		return;
	g_auto(GStrv) lines = g_strsplit(mounts, "\n", -1);
	for (guint i = g_strv_length(lines); i-- > 0;) {
		g_auto(GStrv) words = g_strsplit(lines[i], " ", 4);

		if (g_strv_length(words) == 4 && g_str_has_prefix(words[1], dir) &&
		    g_str_has_prefix(words[2], type))
			umount2(words[1], MNT_DETACH);
	}
}

static G_GNUC_NORETURN void janitor(pid_t test, const char *dir)
{
	sigset_t ended;
	int signal_number;

	setsid();
	sigemptyset(&ended);
	sigaddset(&ended, SIGUSR1);
	sigprocmask(SIG_BLOCK, &ended, NULL);
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	prctl(PR_SET_NAME, "test-janitor");
	/* Criterion's own descriptors must not outlive the test; stderr stays, so that tests/run
	 * waits */
	close_range(3, ~0u, 0);
	if (getppid() == test)
		sigwait(&ended, &signal_number);
	for (int i = 0; i < 500 && kill_namespace() > 0; i++)
		g_usleep(10000);
	detach_mounts(dir, "");
	clear_loop_devices(dir);
	rmdir(dir);
	_exit(0);
}

/* ---- the stage ---- */

static void must_mount(
    const char *what, const char *where, const char *type, unsigned long flags, const char *data)
{
	cr_assert(mount(what, where, type, flags, data) == 0, "mounting %s on %s: %s", what, where,
	    g_strerror(errno));
}

/* A /dev/fuse that ordinary users may open, as udev makes it, in this namespace alone. */
static void open_dev_fuse(struct stage *stage)
{
	struct stat st;

	cr_assert(stat("/dev/fuse", &st) == 0, "no /dev/fuse: try 'modprobe fuse'");
	if ((st.st_mode & 0666) == 0666)
		return;
	char *node = text(stage, "%s/dev-fuse", stage->dir);
	cr_assert(mknod(node, S_IFCHR | 0666, st.st_rdev) == 0, "mknod: %s", g_strerror(errno));
	cr_assert(chmod(node, 0666) == 0);
	must_mount(node, "/dev/fuse", NULL, MS_BIND, NULL);
}

void stage_permit_user_allow_other(struct stage *stage)
{
	char *conf = text(stage, "%s/fuse.conf", stage->dir);

	cr_assert(g_file_set_contents(conf, "user_allow_other\n", -1, NULL));
	cr_assert(chmod(conf, 0644) == 0);
	must_mount(conf, "/etc/fuse.conf", NULL, MS_BIND, NULL);
}

char *stage_directory(struct stage *stage, const char *name, uid_t uid)
{
	char *path = text(stage, "%s/%s", stage->dir, name);

	if (mkdir(path, 0755) == 0)
		cr_assert(chown(path, uid, uid) == 0);
	else
		cr_assert_eq(errno, EEXIST, "mkdir %s: %s", path, g_strerror(errno));
	return path;
}

/* The binary is copied, so that it can be run by a user who may not search the source tree. */
static void install_binary(struct stage *stage)
{
	const char *given = getenv("LUNFS"), *wrapper = getenv("LUNFS_WRAPPER");
	char *copy = text(stage, "%s/bin/lunfs", stage->dir);
	g_autofree char *content = NULL;
	g_autoptr(GError) error = NULL;
	gsize size;

	stage_directory(stage, "bin", 0);
	g_file_get_contents(given ? given : "./build/lunfs", &content, &size, &error);
	cr_assert(error == NULL, "%s", error->message);
	g_file_set_contents(copy, content, (gssize)size, &error);
	cr_assert(error == NULL, "%s", error->message);
	cr_assert(chmod(copy, 0755) == 0);
	stage->lunfs = wrapper && *wrapper ? text(stage, "%s %s", wrapper, copy) : copy;
}

static void bring_up_loopback(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	cr_assert(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "lo: %s", g_strerror(errno));
	close(fd);
}

struct stage *stage_new(void)
{
	struct stage *stage = g_new0(struct stage, 1);
	g_autoptr(GError) error = NULL;
	pid_t test = getpid();

	cr_assert(geteuid() == 0, "these tests want root: run them with tests/run");
	stage->owned = g_ptr_array_new();
	stage->dir = g_dir_make_tmp("lunfs-stage-XXXXXX", &error);
	cr_assert(stage->dir != NULL, "%s", error->message);
	cr_assert(unshare(CLONE_NEWNS | CLONE_NEWNET) == 0, "unshare: %s", g_strerror(errno));
	bring_up_loopback();
	must_mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);

	detach_mounts("/", "fuse.lunfs"); /* the developer's own: not ours to see */

	pid_t child = fork();
	cr_assert(child >= 0);
	if (child == 0)
		janitor(test, stage->dir);

	must_mount("lunfs-test", stage->dir, "tmpfs", 0, "mode=0755");
	must_mount("lunfs-test", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
	open_dev_fuse(stage);
	install_binary(stage);
	return stage;
}
