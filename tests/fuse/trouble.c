/*
 * trouble.c - ends that are not asked for: signals under load, targets that forget or fall silent,
 * mounts that cannot be asked or whose process died, commands without a terminal, a parent or a
 * reader.
 */
#include "support/data.h"
#include "support/hole.h"
#include "support/mount.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(trouble, .timeout = 120);

static bool daemon_is_gone(void *unused)
{
	(void)unused;
	return lunfs_daemon() == 0;
}
static bool is_mounted_now(void *mountpoint)
{
	return is_mounted(mountpoint);
}

/* In the foreground, so that the exit status is seen; what it says goes to the file "said". */
static pid_t mount_in_foreground(struct scene *scene, uint16_t port)
{
	pid_t pid =
	    sh_start(scene->stage, 0, NULL, text(scene->stage, "%s/said", scene->stage->dir),
	        "%s mount iscsi://127.0.0.1:%u/" SCENE_IQN " %s -f", scene->stage->lunfs, port,
	        scene->mnt);

	cr_assert(await(10, is_mounted_now, scene->mnt), "%s", must(scene->stage, "cat said"));
	return pid;
}

static bool says(const char *text, const char *what)
{
	return strstr(text, what) != NULL;
}

/* ---- reads and direct writes that wait for one another ---- */

#define DEPTH   64
#define PIECE   KIB(64)
#define READERS 3

struct load {
	const char *path;
	unsigned long operations;
};

/* Keeps DEPTH WRITEs in flight: each that ends sends the next. 0, or an errno. */
static int write_directly(void *data)
{
	struct load *load = data;
	int fd = open(load->path, O_WRONLY | O_DIRECT | O_CLOEXEC);
	unsigned char *piece = aligned_buffer(PIECE);
	struct iocb iocb[DEPTH], *next;
	struct io_event event;
	io_context_t context = NULL;
	unsigned long sent = 0;

	pattern_fill(piece, PIECE, 0, 1);
	if (fd < 0 || io_setup(DEPTH, &context) != 0)
		return errno;
	for (unsigned long done = 0; done < load->operations;) {
		while (sent < load->operations && sent - done < DEPTH) {
			next = sent < DEPTH ? &iocb[sent] : event.obj;
			io_prep_pwrite(next, fd, piece, PIECE, (long long)(sent++ % DEPTH * PIECE));
			if (io_submit(context, 1, &next) != 1)
				return EAGAIN;
		}
		if (io_getevents(context, 1, 1, &event, NULL) != 1 || event.res != PIECE)
			return EIO;
		done++;
	}
	return 0;
}

/* Reads all of it again and again. */
static int read_buffered(void *data)
{
	struct load *load = data;
	int fd = open(load->path, O_RDONLY | O_CLOEXEC);
	unsigned char *piece = malloc(PIECE);

	if (fd < 0)
		return errno;
	for (unsigned long i = 0; i < load->operations; i++)
		if (pread(fd, piece, PIECE, (off_t)(i % DEPTH * PIECE)) != (ssize_t)PIECE)
			return errno;
	return 0;
}

/* Kernel and process wait for one another, and no signal ends that: the test would never end. */
static void break_deadlock(const struct scene *scene)
{
	sh(scene->stage,
	    "mount -t fusectl none /sys/fs/fuse/connections; "
	    "echo 1 >/sys/fs/fuse/connections/$(sed -n 's,.* 0:\\([0-9]*\\) / %s .*,\\1,p' "
	    "/proc/self/mountinfo)/abort",
	    scene->mnt);
}

Test(trouble, buffered_readers_do_not_stop_many_asynchronous_direct_writes)
{
	struct scene scene = scene_with_disk(DEPTH * PIECE, 512);
	struct load load = {scene.file, scaled(3000)};
	pid_t readers[READERS];

	for (unsigned i = 0; i < READERS; i++)
		readers[i] = call_start(0, read_buffered, &load);
	pid_t writer = call_start(0, write_directly, &load);
	int status = call_end(writer, 30);
	if (status != 0)
		break_deadlock(&scene);
	cr_assert_eq(status, 0, "the writes %s", status < 0 ? "stopped" : strerror(status));
	for (unsigned i = 0; i < READERS; i++)
		cr_assert_eq(call_end(readers[i], 60), 0, "reader %u stopped, or failed", i);
	scene_umount(&scene);
}

/* ---- SIGTERM while there are writers ---- */

#define BLOCK   4096u
#define BLOCKS  64u
#define WRITERS 3u

/* What a writer has been promised, in memory that it shares with the test. */
struct writer {
	char path[256];
	unsigned number;
	atomic_ulong acknowledged;
};

static struct writer *writers_new(const char *path)
{
	struct writer *writers = mmap(NULL, WRITERS * sizeof(struct writer), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert(writers != MAP_FAILED);
	for (unsigned i = 0; i < WRITERS; i++) {
		g_strlcpy(writers[i].path, path, sizeof(writers[i].path));
		writers[i].number = i;
	}
	return writers;
}

static uint64_t writer_offset(const struct writer *writer, unsigned long round)
{
	return (writer->number * BLOCKS + round % BLOCKS) * BLOCK;
}

/* Goes round its blocks with the number of the write, from 1, until one fails; its errno. */
static int write_until_refused(void *data)
{
	struct writer *writer = data;
	unsigned long content[BLOCK / sizeof(unsigned long)];
	int fd = open(writer->path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	for (unsigned long round = 0;; round++) {
		for (size_t i = 0; i < G_N_ELEMENTS(content); i++)
			content[i] = round + 1;
		if (pwrite(fd, content, BLOCK, (off_t)writer_offset(writer, round)) != BLOCK)
			return errno;
		atomic_store(&writer->acknowledged, round + 1);
	}
}

/* The one that failed may have been carried out; no other may be older or newer than promised. */
static void must_hold_promises(const char *backing, struct writer *writer)
{
	unsigned long promised = atomic_load(&writer->acknowledged);
	int fd = must_open(backing, O_RDONLY);

	for (unsigned long back = 0; back < BLOCKS && back < promised; back++) {
		unsigned long round = promised - 1 - back, found[BLOCK / sizeof(unsigned long)];

		must_pread(fd, found, BLOCK, writer_offset(writer, round));
		for (size_t i = 0; i < G_N_ELEMENTS(found); i++)
			cr_assert(found[i] == round + 1 ||
			              (found[i] == promised + 1 && back == BLOCKS - 1),
			    "writer %u: write %lu of %lu is acknowledged, but %lu is there",
			    writer->number, round + 1, promised, found[i]);
	}
	close(fd);
}

static bool all_write(void *data)
{
	struct writer *writers = data;

	for (unsigned i = 0; i < WRITERS; i++)
		if (atomic_load(&writers[i].acknowledged) < 100)
			return false;
	return true;
}

Test(trouble, what_was_acknowledged_before_and_after_SIGTERM_is_at_the_target)
{
	struct scene scene = scene_unmounted(0);
	pid_t lunfs_pid = mount_in_foreground(&scene, scene.tgt->port), pids[WRITERS];
	struct writer *writers = writers_new(scene.file);

	for (unsigned i = 0; i < WRITERS; i++)
		pids[i] = call_start(0, write_until_refused, &writers[i]);
	cr_assert(await(20, all_write, writers));
	cr_assert(kill(lunfs_pid, SIGTERM) == 0);
	cr_assert_eq(call_end(lunfs_pid, 20), 0, "%s", must(scene.stage, "cat said"));
	for (unsigned i = 0; i < WRITERS; i++) {
		int error = call_end(pids[i], 10);

		/* who slept through the flush finds the process gone */
		cr_assert(error == EIO || error == ENOTCONN || error == ECONNABORTED,
		    "writer %u got %d: %s", i, error, strerror(error));
		must_hold_promises(scene.backing, &writers[i]);
	}
	cr_assert(!is_mounted(scene.mnt));
}

static int errno_of_write(void *path)
{
	char byte = 1;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && pwrite(fd, &byte, 1, 0) == 1 ? 0 : errno;
}

Test(trouble, a_write_after_SIGTERM_gets_EIO_and_none_before_it_is_lost)
{
	struct scene scene = scene_unmounted(0);
	char *other = text(scene.stage, "%s/lun2.img", scene.mnt); /* no writer has it locked */
	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(1));
	struct proxy *proxy = proxy_start(scene.tgt->port);
	pid_t lunfs_pid = mount_in_foreground(&scene, proxy_port(proxy)), pids[WRITERS];
	struct writer *writers = writers_new(scene.file);

	for (unsigned i = 0; i < WRITERS; i++)
		pids[i] = call_start(0, write_until_refused, &writers[i]);
	cr_assert(await(20, all_write, writers));
	must(scene.stage, "sync %s", other);    /* so that its close need not wait for the target */
	proxy_stall(proxy, PROXY_TO_INITIATOR); /* each has one write on its way from here on */
	cr_assert(kill(lunfs_pid, SIGTERM) == 0);
	g_usleep((gulong)(patience(0.3) * 1e6));
	pid_t late = call_start(0, errno_of_write, other);
	cr_assert_eq(call_end(late, 3), EIO, "a write is taken while the last flush is under way");
	proxy_resume(proxy);
	cr_assert_eq(call_end(lunfs_pid, 20), 0, "%s", must(scene.stage, "cat said"));
	for (unsigned i = 0; i < WRITERS; i++) {
		cr_assert(call_end(pids[i], 10) > 0);
		must_hold_promises(scene.backing, &writers[i]);
	}
	proxy_stop(proxy);
}

/* ---- targets that forget, or are silent ---- */

/* Holds the file open until it is killed. No other process may: each close of it is a flush. */
static int write_unsynced(void *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || pwrite(fd, "unsynced", 8, 4096) != 8)
		return 1;
	raise(SIGSTOP);
	return 0;
}

/* Returns when it has written, and stopped. */
static pid_t start_unsynced_writer(const struct scene *scene)
{
	pid_t pid = call_start(0, write_unsynced, scene->file);
	int status;

	cr_assert(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
	return pid;
}

#define THE_LOSS "not known to be on stable storage: lun1.img: bytes 4096-4607 (512 in all)"

/* The target is made unable to answer before the first SIGTERM; after the second it is left. */
static void must_tell_of_the_loss(
    void (*disable)(struct tgt *tgt), void (*enable)(struct tgt *tgt), double wait)
{
	struct scene scene = scene_unmounted(0);
	pid_t lunfs_pid = mount_in_foreground(&scene, scene.tgt->port);
	pid_t writer = start_unsynced_writer(&scene);

	disable(scene.tgt);
	cr_assert(kill(lunfs_pid, SIGTERM) == 0);
	cr_assert_eq(call_end(lunfs_pid, wait), -1, "it did not wait for the target");
	cr_assert(kill(lunfs_pid, SIGTERM) == 0);
	cr_assert_eq(call_end(lunfs_pid, 10), 1, "the loss is not in the exit status");
	cr_assert(
	    says(must(scene.stage, "cat said"), THE_LOSS), "%s", must(scene.stage, "cat said"));
	cr_assert(!is_mounted(scene.mnt));
	cr_assert(kill(writer, SIGKILL) == 0);
	if (enable)
		enable(scene.tgt);
}

Test(trouble, SIGTERM_tells_of_writes_that_a_target_which_died_may_have_lost)
{
	must_tell_of_the_loss(tgt_kill, NULL, 1);
}

Test(trouble, SIGTERM_writes_again_what_a_target_which_died_may_have_lost)
{
	struct scene scene = scene_unmounted(0);
	pid_t lunfs_pid = mount_in_foreground(&scene, scene.tgt->port);
	pid_t writer = start_unsynced_writer(&scene);

	tgt_kill(scene.tgt);
	fill_file(scene.backing, 0, MIB(1)); /* it had it in memory only */
	tgt_restart(scene.tgt);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	tgt_add_lun(scene.tgt, 1, .lun = 1, .size = scene.size);
	cr_assert(kill(lunfs_pid, SIGTERM) == 0);
	cr_assert_eq(call_end(lunfs_pid, 15), 0, "%s", must(scene.stage, "cat said"));
	must_hold(scene.backing, "unsynced", 8, 4096);
	cr_assert(kill(writer, SIGKILL) == 0);
}

Test(trouble, a_second_SIGTERM_leaves_a_silent_target_and_what_was_not_flushed)
{
	must_tell_of_the_loss(tgt_freeze, tgt_thaw, 0.5);
}

/* ---- live mounts that cannot be asked, and dead ones ---- */

static void must_mount_as(struct scene *scene, uid_t uid)
{
	struct result *result = lunfs_as(
	    scene->stage, uid, "mount %s %s", tgt_url(scene->tgt, SCENE_IQN, -1), scene->mnt);

	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert(is_mounted(scene->mnt));
}

struct opener {
	pid_t pid;
	const char *file;
};
static bool has_it_open(void *data)
{
	struct opener *opener = data;
	g_autofree char *link = g_strdup_printf("/proc/%d/fd/0", opener->pid);
	g_autofree char *file = g_file_read_link(link, NULL);

	return g_strcmp0(file, opener->file) == 0;
}

/* environment: what 'lunfs umount' looks for the control socket with, in vain. */
static void umount_without_control_socket(struct scene *scene, uid_t uid, const char *environment)
{
	struct opener opener = {
	    sh_start(scene->stage, uid, NULL, NULL, "sleep 100 <%s", scene->file), scene->file};

	cr_assert(await(10, has_it_open, &opener));
	struct result *result = sh_as(
	    scene->stage, uid, "%s %s umount %s", environment, scene->stage->lunfs, scene->mnt);
	cr_assert_eq(result->status, 1, "exit status %d: %s", result->status, result->err);
	cr_assert(says(result->err, "in use"), "%s", result->err);
	cr_assert(is_mounted(scene->mnt), "detached under an open file");
	cr_assert(kill(opener.pid, SIGKILL) == 0);
	cr_assert_eq(call_end(opener.pid, 10), 128 + SIGKILL);

	result = sh_as(
	    scene->stage, uid, "%s %s umount %s", environment, scene->stage->lunfs, scene->mnt);
	cr_assert_eq(result->status, 1, "exit status %d: %s", result->status, result->err);
	cr_assert(says(result->err, "cannot be asked to flush"), "%s", result->err);
	cr_assert(!is_mounted(scene->mnt));
	cr_assert(await(10, daemon_is_gone, NULL));
}

Test(trouble, roots_umount_without_the_control_socket_says_so_and_spares_an_open_file)
{
	struct scene scene = scene_unmounted(0);

	must_mount_as(&scene, 0);
	must(scene.stage, "rm /run/lunfs/*");
	umount_without_control_socket(&scene, 0, "");
}

Test(trouble, a_users_umount_without_the_control_socket_says_so_and_spares_an_open_file)
{
	struct scene scene = scene_unmounted(ORDINARY_USER);
	char *elsewhere = stage_directory(scene.stage, "elsewhere", ORDINARY_USER);

	must_mount_as(&scene, ORDINARY_USER);
	umount_without_control_socket(
	    &scene, ORDINARY_USER, text(scene.stage, "XDG_RUNTIME_DIR=%s", elsewhere));
}

/* The kernel remembers the attributes of the root, and stat() of the dead mount works. */
static void mount_over_dead_one_that_was_looked_at(uid_t uid)
{
	struct scene scene = scene_unmounted(uid);

	must_mount_as(&scene, uid);
	cr_assert_eq(sh_as(scene.stage, uid, "stat %s", scene.mnt)->status, 0);
	cr_assert(kill(lunfs_daemon(), SIGKILL) == 0);
	cr_assert(await(5, daemon_is_gone, NULL));
	must_mount_as(&scene, uid);
	struct result *result = sh_as(scene.stage, uid, "cmp -n 1000 %s /dev/zero", scene.file);
	cr_assert_eq(result->status, 0, "%s", result->err);
	result = lunfs_as(scene.stage, uid, "umount %s", scene.mnt);
	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert(!is_mounted(scene.mnt), "the dead mount is still below");
}

Test(trouble, roots_next_mount_detaches_a_dead_one_that_was_looked_at)
{
	mount_over_dead_one_that_was_looked_at(0);
}

Test(trouble, a_users_next_mount_detaches_a_dead_one_that_was_looked_at)
{
	mount_over_dead_one_that_was_looked_at(ORDINARY_USER);
}

/* ---- commands without a terminal, a parent, a reader ---- */

Test(trouble, mount_works_with_its_standard_descriptors_closed)
{
	struct scene scene = scene_unmounted(0);
	char *source = tgt_url(scene.tgt, SCENE_IQN, -1);
	const char *const closed[] = {"<&- >&- 2>&-", "<&-", ">&-", "2>&-"};

	for (unsigned i = 0; i < G_N_ELEMENTS(closed); i++) {
		struct result *result =
		    lunfs(scene.stage, "mount %s %s %s", source, scene.mnt, closed[i]);

		cr_assert_eq(
		    result->status, 0, "with %s: %d: %s", closed[i], result->status, result->err);
		must(scene.stage, "cmp -n 1000 %s /dev/zero", scene.file);
		must(scene.stage, "dd if=/dev/zero of=%s bs=4k count=1 conv=notrunc,fsync",
		    scene.file);
		scene_umount(&scene);
	}
}

static bool has_child(void *pid)
{
	g_autofree char *path =
	    g_strdup_printf("/proc/%d/task/%d/children", *(pid_t *)pid, *(pid_t *)pid);
	g_autofree char *children = NULL;

	return g_file_get_contents(path, &children, NULL, NULL) && children[0] != '\0';
}

Test(trouble, a_mount_command_that_is_killed_during_the_login_leaves_nothing)
{
	struct stage *stage = stage_new();
	char *mnt = stage_directory(stage, "mnt", 0);
	pid_t parent =
	    sh_start(stage, 0, NULL, NULL, "%s mount iscsi://127.0.0.1:%u/" SCENE_IQN " %s",
	        stage->lunfs, hole_that_is_silent(), mnt);

	cr_assert(await(10, has_child, &parent), "there is no child that logs in");
	cr_assert_eq(call_end(parent, 0.3), -1, "it does not wait for the login");
	cr_assert(kill(parent, SIGTERM) == 0);
	cr_assert_eq(call_end(parent, 5), 128 + SIGTERM);
	cr_assert(await(3, daemon_is_gone, NULL), "its child goes on");
	cr_assert(!is_mounted(mnt));
}

/* How often what stands in text. */
static unsigned count(const char *text, const char *what)
{
	unsigned times = 0;

	for (; (text = strstr(text, what)) != NULL; text += strlen(what))
		times++;
	return times;
}

Test(trouble, status_tells_of_each_mount_once)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	const char *json = must_lunfs(scene.stage, "status --json");

	cr_assert_eq(count(must_lunfs(scene.stage, "status"), scene.mnt), 1);
	cr_assert_eq(count(json, scene.mnt), 1, "%s", json);
	cr_assert_eq(count(json, "\n"), 1, "%s", json);
	scene_umount(&scene);
}

Test(trouble, a_link_to_the_mountpoint_is_as_good_as_the_mountpoint)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	must(scene.stage, "ln -s mnt link && ln -s %s/link far", scene.stage->dir);
	cr_assert(says(must_lunfs(scene.stage, "status link"), scene.mnt));
	cr_assert(says(must_lunfs(scene.stage, "status far --json"), scene.mnt));
	must_lunfs(scene.stage, "umount far");
	cr_assert(!is_mounted(scene.mnt));
}

Test(trouble, what_discover_could_not_print_is_in_its_exit_status)
{
	struct scene scene = scene_unmounted(0);
	struct result *result = lunfs(scene.stage, "discover %s >/dev/full", scene.tgt->portal);

	cr_assert_eq(result->status, 1, "exit status %d: %s", result->status, result->err);
	cr_assert(says(result->err, "lunfs: "), "%s", result->err);
}
