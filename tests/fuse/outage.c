/*
 * outage.c - sessions that survive loss: while programs read, write and sync, the network or the
 * target goes, and comes back, and nobody notices but the clock.
 */
#include "support/data.h"
#include "support/load.h"
#include "support/proxy.h"
#include "support/script_raw.h"
#include "support/script_target.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

TestSuite(outage, .timeout = 120);

/* ---- the network ---- */

/* With I/O under way, so that there is something to send again. */
static void cut(enum proxy_cut how)
{
	struct scene scene = scene_with_tgt(NULL);
	struct load *load = load_start(&scene);

	for (unsigned i = 1; i <= 3; i++) {
		load_must_go_on(load);
		proxy_stall(scene.proxy, PROXY_BOTH);
		g_usleep(200000);
		double start = seconds_now();
		proxy_cut(scene.proxy, how);
		scene_must_say(&scene, "session lost: ", i, 2);
		double noticed = seconds_now() - start;
		proxy_resume(scene.proxy);
		scene_must_say(&scene, "logged in again at ", i, 5);
		figure("%s: noticed after %.0f ms, logged in again after %.0f ms\n",
		    how == PROXY_CUT_RST ? "RST" : "FIN", noticed * 1000,
		    (seconds_now() - start) * 1000);
	}
	load_must_go_on(load);
	cr_assert(status_number(&scene, "outage_resent") > 0, "nothing was under way");
	must_end_well(load, &scene, "");
}

Test(outage, a_reset_is_noticed_at_once_and_is_a_pause)
{
	cut(PROXY_CUT_RST);
}

Test(outage, a_connection_that_the_target_closes_is_noticed_at_once_and_is_a_pause)
{
	cut(PROXY_CUT_FIN);
}

Test(outage, packets_that_vanish_are_noticed_by_the_keepalive_and_are_a_pause)
{
	struct scene scene = scene_with_tgt(SOON);
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	proxy_drop(scene.proxy, true);
	double start = seconds_now();
	scene_must_say(&scene, "session lost: ", 1, 4);
	figure("keepalive of 1 s + 1 s: noticed after %.0f ms\n", (seconds_now() - start) * 1000);
	g_usleep(500000);
	cr_assert_str_eq(status_of(&scene, "outage_over"), "false");
	cr_assert(status_number(&scene, "outage_ms") >= 500);
	cr_assert(status_number(&scene, "waiting") > 0);
	start = seconds_now();
	proxy_heal(scene.proxy);
	load_must_go_on(load);
	figure("network healed: I/O goes on after %.0f ms\n", (seconds_now() - start) * 1000);
	must_end_well(load, &scene, "no answer to a NOP-Out");
}

static void half_a_pdu(enum proxy_direction direction)
{
	struct scene scene = scene_with_tgt(SOON);
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	proxy_stall_within(scene.proxy, direction, PROXY_HALF, 1000);
	scene_must_say(&scene, "session lost: ", 1, 4);
	load_must_go_on(load);
	must_end_well(load, &scene, "no answer to a NOP-Out");
}

Test(outage, half_an_answer_and_then_nothing_is_a_pause)
{
	half_a_pdu(PROXY_TO_INITIATOR);
}

Test(outage, half_a_command_and_then_nothing_is_a_pause)
{
	half_a_pdu(PROXY_TO_TARGET);
}

/* A network namespace of lunfs' own, with a cable to the target's. */
static struct scene scene_with_cable(void)
{
	struct scene scene = {.stage = stage_new(), .size = LOAD_DISK};
	struct stage *stage = scene.stage;
	unsigned number = (unsigned)getpid();
	char *end = text(stage, "lu%u", number);

	if (sh(stage, "ip netns add own && ip link add %s type veth peer name eth0 netns own", end)
	        ->status != 0) {
		fprintf(stderr, "*** NOT TESTED: no network namespaces here ***\n");
		cr_skip_test("no network namespaces");
	}
	char *net = text(stage, "10.%u.%u", 128 + number / 256 % 64, number % 256);
	must(stage,
	    "ip address add %s.1/24 dev %s && ip link set %s up && "
	    "ip -n own address add %s.2/24 dev eth0 && ip -n own link set eth0 up",
	    net, end, end, net);
	scene.tgt = tgt_start(stage);
	tgt_set(scene.tgt, "--mode portal --op new --param portal=%s.1:%u", net, scene.tgt->port);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	scene.backing = tgt_add_lun(scene.tgt, 1, .lun = 1, .size = LOAD_DISK);
	load_put_pattern(&scene);
	char *lunfs = stage->lunfs;
	stage->lunfs = text(stage, "nsenter --net=/run/netns/own %s", lunfs);
	scene_mount_as(
	    &scene, 0, text(stage, "iscsi://%s.1:%u/" SCENE_IQN, net, scene.tgt->port), SOON);
	stage->lunfs = lunfs;
	return scene;
}

Test(outage, a_pulled_cable_is_a_pause)
{
	struct scene scene = scene_with_cable();
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	must(scene.stage, "ip -n own link set eth0 down");
	scene_must_say(&scene, "session lost: ", 1, 5);
	g_usleep(1000000);
	must(scene.stage, "ip -n own link set eth0 up");
	load_must_go_on(load);
	must_end_well(load, &scene, "");
}

/* ---- the target's process ---- */

Test(outage, a_target_that_is_killed_and_restarted_is_a_pause)
{
	struct scene scene = scene_with_tgt(NULL);
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	tgt_kill(scene.tgt);
	scene_must_say(&scene, "session lost: ", 1, 2);
	g_usleep(500000);
	scene_restart_tgt(&scene);
	double start = seconds_now();
	load_must_go_on(load);
	figure("tgtd restarted: I/O goes on after %.0f ms\n", (seconds_now() - start) * 1000);
	must_end_well(load, &scene, "");
}

Test(outage, a_target_that_is_stopped_for_seconds_is_a_pause)
{
	struct scene scene = scene_with_tgt(SOON);
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	tgt_freeze(scene.tgt);
	scene_must_say(&scene, "session lost: ", 1, 4);
	g_usleep(1500000);
	tgt_thaw(scene.tgt);
	load_must_go_on(load);
	must_end_well(load, &scene, "no answer to a NOP-Out");
}

Test(outage, a_target_that_is_stopped_for_a_moment_costs_no_session)
{
	struct scene scene = scene_with_tgt(NULL);
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	tgt_freeze(scene.tgt);
	g_usleep(1500000);
	tgt_thaw(scene.tgt);
	load_must_go_on(load);
	load_end(load, &scene);
	cr_assert_eq(status_number(&scene, "outages"), 0);
	cr_assert_eq(status_number(&scene, "reconnects"), 0);
	cr_assert_eq(status_number(&scene, "resent"), 0);
	cr_assert_str_eq(status_of(&scene, "outage_reason"), "");
	scene_end(&scene);
}

/* ---- portals ---- */

Test(outage, a_target_that_moves_is_followed)
{
	struct scene scene = scene_with_tgt(NULL);
	struct tgt *other = tgt_start(scene.stage); /* the same disk elsewhere */
	struct load *load = load_start(&scene);

	tgt_add_target(other, 1, SCENE_IQN);
	tgt_add_lun(other, 1, .lun = 1, .size = scene.size);
	load_must_go_on(load);
	proxy_retarget(scene.proxy, other->port);
	proxy_cut(scene.proxy, PROXY_CUT_RST);
	tgt_kill(scene.tgt);
	load_must_go_on(load);
	must_end_well(load, &scene, "");
}

Test(outage, a_target_that_redirects_is_followed)
{
	struct scene scene = scene_with_script(NULL);
	struct proxy *elsewhere = proxy_start(script_target_port(scene.script));
	struct load *load = load_start(&scene);
	struct script_login_rule rule = {
	    .deed = SCRIPT_LOGIN_REDIRECT, .times = 1, .status_class = 1, .status_detail = 1};

	snprintf(rule.address, sizeof(rule.address), "127.0.0.1:%u,1", proxy_port(elsewhere));
	load_must_go_on(load);
	script_target_login_rule(scene.script, rule);
	script_target_drop(scene.script, SCRIPT_FIN);
	scene_must_say(&scene,
	    text(scene.stage, "logged in again at 127.0.0.1:%u", proxy_port(elsewhere)), 1, 5);
	load_must_go_on(load);
	cr_assert_str_eq(
	    status_of(&scene, "address"), text(scene.stage, "127.0.0.1:%u", proxy_port(elsewhere)));
	/* for that session: the next one begins at the portal that the user named */
	script_target_drop(scene.script, SCRIPT_RST);
	load_must_go_on(load);
	cr_assert_str_eq(status_of(&scene, "address"),
	    text(scene.stage, "127.0.0.1:%u", script_target_port(scene.script)));
	must_end_well(load, &scene, "");
	proxy_stop(elsewhere);
}

/* Discovery tells of the proxy's portal, which is used first, and of the target's own. */
static void other_portal(bool silent)
{
	struct scene scene = scene_of_script(LOAD_DISK);
	struct stage *stage = scene.stage;
	struct proxy *first = proxy_start(script_target_port(scene.script));

	load_put_pattern(&scene);
	script_target_add_address(scene.script, text(stage, "127.0.0.1:%u,1", proxy_port(first)));
	scene_mount_as(&scene, 0, text(stage, "iscsi://127.0.0.1:%u", proxy_port(first)), SOON);
	scene.file = text(stage, "%s/" SCENE_IQN "/lun1.img", scene.mnt);
	struct load *load = load_start(&scene);
	load_must_go_on(load);
	cr_assert_str_eq(
	    status_of(&scene, "address"), text(stage, "127.0.0.1:%u", proxy_port(first)));
	if (silent) {
		proxy_drop(first, true);
	} else {
		proxy_refuse(first, true);
		proxy_cut(first, PROXY_CUT_RST);
	}
	scene_must_say(&scene, "session lost: ", 1, 4);
	load_must_go_on(load);
	cr_assert_str_eq(status_of(&scene, "address"),
	    text(stage, "127.0.0.1:%u", script_target_port(scene.script)));
	must_end_well(load, &scene, "");
	proxy_stop(first);
}

Test(outage, where_one_portal_is_closed_another_is_used)
{
	other_portal(false);
}

Test(outage, where_one_portal_is_silent_another_is_used)
{
	other_portal(true);
}

Test(outage, of_a_name_with_two_addresses_the_one_that_answers_is_used)
{
	struct scene scene = scene_of_script(LOAD_DISK);
	struct stage *stage = scene.stage;

	load_put_pattern(&scene);
	must(stage, "printf '127.0.0.9 two.test\n127.0.0.1 two.test\n' >hosts && "
	            "mount --bind hosts /etc/hosts && getent hosts two.test");
	scene_mount_as(&scene, 0,
	    text(stage, "iscsi://two.test:%u/" SCENE_IQN, script_target_port(scene.script)), NULL);
	struct load *load = load_start(&scene);
	load_must_go_on(load);
	script_target_drop(scene.script, SCRIPT_RST);
	load_must_go_on(load);
	must_end_well(load, &scene, "");
}

/* ---- what the target asks for ---- */

static void message(struct script_message message)
{
	struct scene scene = scene_with_script(NULL);
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	script_target_message(scene.script, &message);
	scene_must_say(&scene, "logged in again at ", 1, 15);
	load_must_go_on(load);
	cr_assert_eq(script_target_complaints(scene.script, NULL, 0), 0);
	must_end_well(load, &scene, "");
}

Test(outage, a_target_that_asks_for_a_logout_gets_a_new_login)
{
	message((struct script_message){.event = 1, .parameter3 = 3});
}

Test(outage, a_target_that_drops_the_connection_gets_a_new_login)
{
	message((struct script_message){.event = 2});
}

Test(outage, a_target_that_drops_all_connections_gets_a_new_login)
{
	message((struct script_message){.event = 3});
}

/* ---- sessions of others ---- */

/* Logs in with what lunfs logged in with: the target ends lunfs' session (RFC 7143, 6.3.5). */
static struct raw steal_session(const struct scene *scene)
{
	struct script_login login;
	struct raw raw = raw_connect(script_target_port(scene->script));
	uint8_t header[48] = {0x43, 0x87};
	g_autoptr(GString) keys = g_string_new(NULL);

	cr_assert(script_target_login_attempt(
	    scene->script, script_target_login_attempts(scene->script) - 1, &login));
	memcpy(header + 8, login.isid, sizeof(login.isid));
	g_string_append_printf(keys, "InitiatorName=%s", login.initiator);
	g_string_append_c(keys, '\0');
	g_string_append_len(keys, "TargetName=" SCENE_IQN, sizeof("TargetName=" SCENE_IQN));
	put_be32(header + 24, raw.cmdsn);
	raw_send(&raw, header, keys->str, keys->len);
	cr_assert_eq(raw_receive(&raw), 0x23);
	cr_assert_eq(get_be16(raw.header + 36), 0, "the second login is refused");
	return raw;
}

Test(outage, a_session_that_is_stolen_once_is_taken_back)
{
	struct scene scene = scene_with_script(NULL);
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	struct raw thief = steal_session(&scene);
	scene_must_say(&scene, "logged in again at ", 1, 5);
	load_must_go_on(load);
	while (raw_receive(&thief) >= 0)
		continue;
	close(thief.fd);
	must_end_well(load, &scene, "");
}

/* ---- many at once ---- */

#define DEPTH 64

/* DEPTH WRITEs and READs of a piece each, all under way together. 0, or an errno. */
static int do_many(void *path)
{
	static struct iocb iocbs[2 * DEPTH];
	struct iocb *queue[2 * DEPTH];
	struct io_event events[2 * DEPTH];
	io_context_t context = NULL;
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0 || io_setup(2 * DEPTH, &context) != 0)
		return errno;
	for (unsigned i = 0; i < 2 * DEPTH; i++) {
		unsigned char *bytes = aligned_buffer(LOAD_PIECE);

		queue[i] = &iocbs[i];
		if (i < DEPTH) {
			pattern_fill(bytes, LOAD_PIECE, i * LOAD_PIECE, LOAD_SEED);
			io_prep_pwrite(
			    queue[i], fd, bytes, LOAD_PIECE, (long long)(i * LOAD_PIECE));
		} else {
			io_prep_pread(queue[i], fd, bytes, LOAD_PIECE, (long long)(i * LOAD_PIECE));
		}
	}
	if (io_submit(context, 2 * DEPTH, queue) != 2 * DEPTH)
		return EAGAIN;
	if (io_getevents(context, 2 * DEPTH, 2 * DEPTH, events, NULL) != 2 * DEPTH)
		return EINTR;
	for (unsigned i = 0; i < 2 * DEPTH; i++)
		if (events[i].res != LOAD_PIECE)
			return EIO;
	unsigned char *expected = aligned_buffer(LOAD_PIECE);
	for (unsigned i = DEPTH; i < 2 * DEPTH; i++) {
		pattern_fill(expected, LOAD_PIECE, i * LOAD_PIECE, LOAD_SEED);
		if (first_difference(iocbs[i].u.c.buf, expected, LOAD_PIECE) >= 0)
			return WRONG_BYTES;
	}
	return fsync(fd) == 0 ? 0 : errno;
}

Test(outage, many_commands_that_are_under_way_are_sent_again)
{
	struct scene scene = scene_of_script(2 * DEPTH * LOAD_PIECE);
	unsigned char *expected = aligned_buffer(2 * DEPTH * LOAD_PIECE);
	unsigned char *found = aligned_buffer(2 * DEPTH * LOAD_PIECE);

	pattern_fill(expected, 2 * DEPTH * LOAD_PIECE, 0, LOAD_SEED);
	script_target_write(
	    scene.script, 1, DEPTH * LOAD_PIECE, expected + DEPTH * LOAD_PIECE, DEPTH * LOAD_PIECE);
	scene_mount(&scene, NULL);
	for (int opcode = SCRIPT_SYNC; opcode <= SCRIPT_READ; opcode++)
		script_target_rule(
		    scene.script, (struct script_rule){.opcode = opcode, .hang = true});
	pid_t child = call_start(0, do_many, scene.file);
	cr_assert(script_target_await(scene.script, SCRIPT_READ, DEPTH / 2, patience(10)));
	cr_assert(script_target_await(scene.script, SCRIPT_WRITE, DEPTH / 2, patience(10)));
	script_target_forget_rules(scene.script);
	script_target_drop(scene.script, SCRIPT_RST);
	cr_assert_eq(call_end(child, 15), 0);
	cr_assert(script_target_stable(scene.script, 1, 0, found, 2 * DEPTH * LOAD_PIECE));
	cr_assert(first_difference(found, expected, 2 * DEPTH * LOAD_PIECE) < 0);
	must_tell_of_outages(&scene, 1, "");
	cr_assert(status_number(&scene, "outage_resent") >= DEPTH);
	figure("%s commands were sent again\n", status_of(&scene, "outage_resent"));
	scene_end(&scene);
}

/* ---- programs ---- */

Test(outage, cp_does_not_notice)
{
	struct scene scene = scene_behind_proxy(MIB(16));

	scene_mount(&scene, SOON);
	must(scene.stage, "head -c 16M /dev/urandom >image");
	proxy_cut_after_bytes(scene.proxy, PROXY_TO_TARGET, MIB(3), PROXY_CUT_RST);
	must(scene.stage, "cp image %s", scene.file);
	scene_must_say(&scene, "logged in again at ", 1, 5);
	must(scene.stage, "cmp image %s", scene.backing);
	must(scene.stage,
	    "dd if=/dev/zero of=%s bs=1M count=16 conv=notrunc,fsync oflag=direct "
	    "status=none",
	    scene.file);
	proxy_stall_within(scene.proxy, PROXY_TO_TARGET, PROXY_HALF, KIB(64));
	must(scene.stage, "dd if=image of=%s bs=1M conv=notrunc,fsync status=none", scene.file);
	scene_must_say(&scene, "logged in again at ", 2, 5);
	must(scene.stage, "cmp image %s", scene.backing);
	proxy_cut_after_bytes(scene.proxy, PROXY_TO_INITIATOR, MIB(3), PROXY_CUT_FIN);
	must(scene.stage, "dd if=%s of=copy bs=1M iflag=direct status=none && cmp image copy",
	    scene.file);
	scene_must_say(&scene, "logged in again at ", 3, 5);
	scene_end(&scene);
}

/* A file system on a loop device, while the session comes and goes. */
static void loop_mounted(const char *losetup_options)
{
	struct scene scene = scene_behind_proxy(MIB(48));
	struct stage *stage = scene.stage;
	unsigned outages = 0;

	if (sh(stage, "modprobe -q loop; modprobe -q ext4; "
	              "test -e /dev/loop-control && grep -qw ext4 /proc/filesystems")
	        ->status) {
		fprintf(stderr, "*** NOT TESTED: no ext4, or no loop devices ***\n");
		cr_skip_test("no ext4, or no loop devices");
	}
	scene_mount(&scene, SOON);
	char *device = must(stage, "losetup --find --show %s %s", losetup_options, scene.file);
	char *where = stage_directory(stage, "inside", 0);
	must(stage, "mkfs.ext4 -q %s && mount -t ext4 %s %s", device, device, where);
	pid_t writer = sh_start(stage, 0, NULL, text(stage, "%s/errors", stage->dir),
	    "sh -ec 'cd %s; for i in 1 2 3 4 5; do mkdir d$i; head -c 300000 /dev/urandom >d$i/a; "
	    "cp d$i/a d$i/b; sync -f d$i/b; echo 3 >/proc/sys/vm/drop_caches; cmp d$i/a d$i/b; "
	    "sleep 0.1; done'",
	    where);
	for (int ended = -1; ended < 0;) {
		switch (outages++ % 3) {
		case 0:
			proxy_cut(scene.proxy, PROXY_CUT_RST);
			break;
		case 1:
			proxy_cut_within(
			    scene.proxy, PROXY_TO_TARGET, PROXY_HALF, 4096, PROXY_CUT_FIN);
			break;
		default:
			proxy_drop(scene.proxy, true);
			g_usleep(100000);
			proxy_drop(scene.proxy, false); /* those of before stay silent */
		}
		ended = call_end(writer, 0.7 / patience(1));
		cr_assert(ended <= 0, "%s; %s", must(stage, "cat errors"), scene_said(&scene));
	}
	must(stage, "umount %s && e2fsck -fn %s && losetup -d %s", where, device, device);
	scene_must_say(&scene, "logged in again at ", 1, 5); /* as many as the writer took */
	must_umount(stage, scene.mnt);
	must(stage,
	    "e2fsck -fn %s && mount -o loop,ro %s %s && cd %s && "
	    "for i in 1 2 3 4 5; do cmp d$i/a d$i/b; done",
	    scene.backing, scene.backing, where, where);
	must(stage, "umount %s", where);
	proxy_stop(scene.proxy);
}

Test(outage, a_file_system_on_a_loop_device_does_not_notice)
{
	loop_mounted("");
}

Test(outage, a_file_system_on_a_loop_device_with_direct_io_does_not_notice)
{
	loop_mounted("--direct-io=on");
}
