/*
 * order.c - overlapping writes of which the first was interrupted, and signals (SAFETY.md, 9 and
 * 10).
 */
#include "support/data.h"
#include "support/mount.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

TestSuite(order, .timeout = 120);

struct write_job {
	const char *path;
	int byte, flags;
	size_t length;
	uint64_t offset;
};

static int write_once(void *data)
{
	struct write_job *job = data;
	unsigned char *bytes = aligned_buffer(job->length);
	int fd = open(job->path, O_WRONLY | job->flags | O_CLOEXEC);

	memset(bytes, job->byte, job->length);
	if (fd < 0 || pwrite(fd, bytes, job->length, (off_t)job->offset) != (ssize_t)job->length)
		return 1;
	return fsync(fd) == 0 ? 0 : 2;
}

/* The scene, with a proxy between lunfs and the target. */
static struct scene scene_through_proxy(struct proxy **proxy)
{
	struct scene scene = {.stage = stage_new(), .size = MIB(4)};

	scene.tgt = tgt_start(scene.stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	scene.backing = tgt_add_lun(scene.tgt, 1, .lun = 1, .size = scene.size, .block_size = 512);
	*proxy = proxy_start(scene.tgt->port);
	scene.mnt = must_mount_lunfs(scene.stage,
	    text(scene.stage, "iscsi://127.0.0.1:%u/%s", proxy_port(*proxy), SCENE_IQN), NULL);
	scene.file = text(scene.stage, "%s/lun1.img", scene.mnt);
	return scene;
}

struct arrival {
	struct proxy *proxy;
	uint64_t at_least;
};
static bool has_arrived(void *data)
{
	struct arrival *arrival = data;

	return proxy_arrived(arrival->proxy, PROXY_TO_TARGET) >= arrival->at_least;
}

/*
 * A writes, the target is silent, A is killed, B writes over it, the target comes back: what B
 * wrote stays, however late A's command is carried out.
 */
static void interrupted_then_overwritten(
    struct write_job a, struct write_job b, enum proxy_direction silent)
{
	struct proxy *proxy;
	struct scene scene = scene_through_proxy(&proxy);
	unsigned char *expected = malloc(b.length);

	a.path = b.path = scene.file;
	for (unsigned round = 0; round < 3; round++) {
		/* the PDU with A's (first) data, or the read that completes A's first block */
		struct arrival arrival = {proxy, proxy_arrived(proxy, PROXY_TO_TARGET) + 48};

		a.byte = 'A' + (int)round;
		b.byte = 'b' + (int)round;
		proxy_stall(proxy, silent);
		pid_t first = call_start(0, write_once, &a);
		cr_assert(await(5, has_arrived, &arrival), "A's command was never sent");
		g_usleep(50000);

		double start = seconds_now();
		cr_assert(kill(first, SIGKILL) == 0);
		cr_assert_eq(call_end(first, 3), 128 + SIGKILL);
		cr_assert(seconds_now() - start < patience(2), "killed only after %.1f s",
		    seconds_now() - start);

		pid_t second = call_start(0, write_once, &b);
		g_usleep(100000);
		proxy_resume(proxy);
		cr_assert_eq(call_end(second, 20), 0, "B's write failed");
		memset(expected, b.byte, b.length);
		must_hold(scene.backing, expected, b.length, b.offset);
		/* whatever of A is still to come has come when a later flush is done */
		must(scene.stage, "sync %s; sleep 0.2", scene.file);
		must_hold(scene.backing, expected, b.length, b.offset);
		must_hold(scene.file, expected, b.length, b.offset);
	}
	scene_umount(&scene);
	must_hold(scene.backing, expected, b.length, b.offset);
	proxy_stop(proxy);
}

Test(order, a_write_of_the_same_block_after_an_interrupted_one_stays)
{
	interrupted_then_overwritten((struct write_job){.length = 4096, .offset = 8192},
	    (struct write_job){.length = 4096, .offset = 8192}, PROXY_TO_TARGET);
}

Test(order, it_stays_when_only_the_answer_was_held_up)
{
	interrupted_then_overwritten((struct write_job){.length = 4096, .offset = 8192},
	    (struct write_job){.length = 4096, .offset = 8192}, PROXY_TO_INITIATOR);
}

Test(order, it_stays_with_direct_io_inside_a_large_interrupted_write)
{
	interrupted_then_overwritten(
	    (struct write_job){.length = MIB(1), .offset = 0, .flags = O_DIRECT},
	    (struct write_job){.length = 8192, .offset = KIB(700), .flags = O_DIRECT}, PROXY_BOTH);
}

Test(order, it_stays_where_both_write_parts_of_one_block)
{
	interrupted_then_overwritten(
	    (struct write_job){.length = 300, .offset = 1000, .flags = O_DIRECT},
	    (struct write_job){.length = 200, .offset = 1050, .flags = O_DIRECT}, PROXY_TO_TARGET);
}

static int read_once(void *path)
{
	char bytes[4096];
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	return fd >= 0 && pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) ? 0 : 1;
}

Test(order, a_reader_of_a_silent_target_dies_at_once_when_killed)
{
	struct proxy *proxy;
	struct scene scene = scene_through_proxy(&proxy);

	proxy_stall(proxy, PROXY_BOTH);
	pid_t reader = call_start(0, read_once, scene.file);
	cr_assert_eq(call_end(reader, 0.5), -1, "it read from a silent target");
	cr_assert(kill(reader, SIGKILL) == 0);
	cr_assert_eq(call_end(reader, 3), 128 + SIGKILL);
	proxy_resume(proxy);
	cr_assert_eq(call_as(0, read_once, scene.file), 0);
	scene_umount(&scene);
	proxy_stop(proxy);
}

static volatile sig_atomic_t alarms;

static void count_alarm(int number)
{
	(void)number;
	alarms++;
}

static int io_under_alarms(void *data)
{
	struct sigaction action = {.sa_handler = count_alarm, .sa_flags = SA_RESTART};
	struct itimerval often = {.it_interval.tv_usec = 700, .it_value.tv_usec = 700};
	unsigned char *out = aligned_buffer(KIB(256)), *in = aligned_buffer(KIB(256));
	int fd = open(data, O_RDWR | O_DIRECT | O_CLOEXEC);

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (unsigned i = 0; i < 400; i++) {
		size_t length = i % 2 ? KIB(256) : 1111;
		off_t offset = (off_t)(i % 8 * KIB(300) + i % 3);

		pattern_fill(out, length, i, i);
		if (pwrite(fd, out, length, offset) != (ssize_t)length)
			return 1;
		if (pread(fd, in, length, offset) != (ssize_t)length)
			return 2;
		if (first_difference(in, out, length) >= 0)
			return 3;
		if (i % 16 == 0 && fsync(fd) != 0)
			return 4;
	}
	return alarms > 10 ? 0 : 5;
}

Test(order, a_signal_with_a_handler_makes_no_short_io_fail)
{
	struct scene scene = scene_with_disk(MIB(4), 512);

	cr_assert_eq(call_as(0, io_under_alarms, scene.file), 0);
	scene_umount(&scene);
}
