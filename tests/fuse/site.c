/*
 * site.c - a site's configuration, mounted: one section, all of them, and targets that are not
 * there.
 */
#include "support/site.h"
#include "support/tty.h"

#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(site, .timeout = 180);

#define ONE "iqn.2026-11.org.lunfs.test:one"
#define TWO "iqn.2026-11.org.lunfs.test:two"

/* Two targets, each on a tgtd of its own, sections "one" and "two". */
struct site {
	struct stage *stage;
	struct tgt *one, *two;
	char *mnt;
};

static void site_write(struct site *site, const char *more)
{
	site_configure(site->stage, "%s%s%s",
	    site_section(site->stage, "one", site->one->portal, ONE),
	    site_section(site->stage, "two", site->two->portal, TWO), more);
}

static void serve(struct tgt *tgt, const char *iqn)
{
	tgt_add_target(tgt, 1, iqn);
	tgt_add_lun(tgt, 1, .lun = 1, .size = MIB(4));
}

static struct site site_with_two(void)
{
	struct site site = {.stage = stage_new()};

	site.one = tgt_start(site.stage);
	site.two = tgt_start_in(site.stage, stage_directory(site.stage, "second", 0));
	serve(site.one, ONE);
	serve(site.two, TWO);
	site.mnt = stage_directory(site.stage, "mnt", 0);
	site_write(&site, "");
	return site;
}

Test(site, a_section_is_mounted_by_its_name)
{
	struct site site = site_with_two();

	must_lunfs(site.stage, "one %s", site.mnt);
	cr_assert_str_eq(must(site.stage, "ls %s", site.mnt), "by-id\nby-path\nlun1.img");
	must(site.stage, "grep -q '^one %s fuse.lunfs ' /proc/mounts", site.mnt);
	must(site.stage, "cmp -n 4194304 /dev/zero %s/lun1.img", site.mnt);
	must_umount(site.stage, site.mnt);
}

Test(site, one_lun_of_a_section_is_mounted_on_a_file)
{
	struct site site = site_with_two();
	char *file = text(site.stage, "%s/disk.img", site.stage->dir);

	site_configure(
	    site.stage, "%sluns=1\n", site_section(site.stage, "one", site.one->portal, ONE));
	must(site.stage, "touch %s", file);
	must_lunfs(site.stage, "mount one %s", file);
	cr_assert_str_eq(must(site.stage, "stat -c %%s %s", file), "4194304");
	must_umount(site.stage, file);
}

Test(site, all_targets_stand_in_one_tree)
{
	struct site site = site_with_two();

	must_lunfs(site.stage, "mount all %s", site.mnt);
	cr_assert_str_eq(
	    must(site.stage, "ls -A %s", site.mnt), ".lunfs\nby-id\nby-path\none\ntwo");
	must(site.stage, "echo one > %s/one/lun1.img; echo two > %s/two/lun1.img", site.mnt,
	    site.mnt);
	must(site.stage, "grep -q one %s/target1-lun1", site.stage->dir);
	must(site.stage, "grep -q two %s/second/target1-lun1", site.stage->dir);
	must_umount(site.stage, site.mnt);
}

Test(site, links_by_path_and_by_id_lead_to_the_files)
{
	struct site site = site_with_two();
	char *by_path =
	    text(site.stage, "%s/by-path/ip-%s-iscsi-" ONE "-lun-1", site.mnt, site.one->portal);

	must_lunfs(site.stage, "mount all %s", site.mnt);
	cr_assert_str_eq(must(site.stage, "readlink %s", by_path), "../one/lun1.img");
	must(site.stage, "echo here > %s/one/lun1.img; grep -q here %s", site.mnt, by_path);
	/* tgt makes designators from numbers: both targets' LUNs have the same */
	must(site.stage, "test $(ls %s/by-id | wc -l) -ge 2", site.mnt);
	must(site.stage, "for link in %s/by-id/*; do test -f $link || exit 1; done", site.mnt);
	must(site.stage,
	    "test $(cd %s/by-id && for l in *; do readlink $l; done | sort -u | wc -l) = 2",
	    site.mnt);
	must_umount(site.stage, site.mnt);
}

Test(site, what_each_target_tells_stands_in_status_json_and_metrics)
{
	struct site site = site_with_two();

	must_lunfs(site.stage, "mount all %s", site.mnt);
	must(site.stage, "cp %s/.lunfs/status.json %s/.lunfs/metrics .", site.mnt, site.mnt);
	must(site.stage, "python3 -m json.tool status.json | grep -q '\"name\": \"two\"'");
	must(site.stage, "grep -q 'target=\"two\"' metrics");
	must(site.stage, "test $(stat -c %%s %s/.lunfs/metrics) -gt 1000", site.mnt);
	must_umount(site.stage, site.mnt);
}

Test(site, a_name_may_have_blanks_and_letters_of_any_alphabet)
{
	struct site site = site_with_two();

	site_configure(site.stage, "%s%s",
	    site_section(site.stage, "Büro #1 (alt)", site.one->portal, ONE),
	    site_section(site.stage, "Сервер", site.two->portal, TWO));
	must_lunfs(site.stage, "mount all %s", site.mnt);
	must(site.stage, "cmp -n 4194304 /dev/zero '%s/Büro #1 (alt)/lun1.img'", site.mnt);
	must(site.stage, "cmp -n 4194304 /dev/zero %s/Сервер/lun1.img", site.mnt);
	must(site.stage, "%s status %s --json | python3 -m json.tool > status.json",
	    site.stage->lunfs, site.mnt);
	must(site.stage, "grep -q 'target=\"Büro #1 (alt)\"' %s/.lunfs/metrics", site.mnt);
	must_umount(site.stage, site.mnt);
}

Test(site, what_discover_prints_as_a_configuration_is_right_and_mounts)
{
	struct site site = site_with_two();
	char *conf = site_configure(site.stage, "# mine\n");

	must(site.stage, "%s discover %s %s --config >> %s", site.stage->lunfs, site.one->portal,
	    site.two->portal, conf);
	must_lunfs(site.stage, "check");
	must_lunfs(site.stage, "mount all %s", site.mnt);
	cr_assert_str_eq(must(site.stage, "ls %s", site.mnt), "by-id\nby-path\none\ntwo");
	must_umount(site.stage, site.mnt);
}

/* A record as iscsiadm keeps it. */
static void write_node(struct site *site, const struct tgt *tgt, const char *iqn, const char *more)
{
	char *directory = text(site->stage, "%s/etc/iscsi/nodes/%s/127.0.0.1,%u,1",
	    site->stage->dir, iqn, (unsigned)tgt->port);

	must(site->stage,
	    "mkdir -p %s && printf '# BEGIN RECORD 2.1.8\\nnode.name = %s\\nnode.tpgt = 1\\n"
	    "node.startup = automatic\\nnode.conn[0].address = 127.0.0.1\\nnode.conn[0].port = "
	    "%u\\n"
	    "%s# END RECORD\\n' > %s/default",
	    directory, iqn, (unsigned)tgt->port, more, directory);
}

Test(site, an_open_iscsi_setup_is_imported_mounted_with_one_command_and_watched)
{
	struct site site = site_with_two();
	char *conf = site_configure(site.stage, "# nothing yet\n");

	tgt_chap(site.two, 1, "joe", "joes-secret-1");
	write_node(&site, site.one, ONE, "node.session.timeo.replacement_timeout = 60\\n");
	write_node(&site, site.two, TWO,
	    "node.session.auth.authmethod = CHAP\\nnode.session.auth.username = joe\\n"
	    "node.session.auth.password = joes-secret-1\\n");
	must(site.stage, "umask 077; %s import %s/etc/iscsi > %s && chmod 600 %s",
	    site.stage->lunfs, site.stage->dir, conf, conf);
	must_lunfs(site.stage, "check");
	must_lunfs(site.stage, "mount all %s", site.mnt);
	must(site.stage, "cmp -n 4194304 /dev/zero %s/one/lun1.img", site.mnt);
	must(site.stage, "cmp -n 4194304 /dev/zero %s/two/lun1.img", site.mnt);
	struct tty *tty = tty_start(site.stage, 24, 80, "%s top %s; echo it ended; sleep 1000",
	    site.stage->lunfs, site.mnt);
	tty_must_show(tty, "2 targets, 2 LUNs");
	tty_type(tty, "q");
	tty_must_show(tty, "it ended");
	tty_must_be_as_before(tty);
	tty_end(tty);
	must_umount(site.stage, site.mnt);
}

/* ---- targets that are not there ---- */

static double seconds_to_mount(struct site *site)
{
	double before = seconds_now();

	must(site->stage, "%s mount all %s 2> messages", site->stage->lunfs, site->mnt);
	return seconds_now() - before;
}

Test(site, a_target_that_refuses_connections_does_not_stop_the_others)
{
	struct site site = site_with_two();

	tgt_kill(site.two);
	seconds_to_mount(&site);
	must(site.stage, "grep -q two messages && test $(wc -l < messages) = 1");
	cr_assert_str_eq(must(site.stage, "ls %s/two", site.mnt), "");
	cr_assert_str_eq(must(site.stage, "ls %s/one", site.mnt), "lun1.img");
	cr_assert_neq(site_status(site.stage, site.mnt, "T['two']['trouble']")[0], '\0');
	cr_assert_str_eq(site_status(site.stage, site.mnt, "T['two']['state']"), "failed");
	cr_assert_str_eq(site_status(site.stage, site.mnt, "T['one']['state']"), "ready");
	must_umount(site.stage, site.mnt);
}

Test(site, a_target_that_is_silent_costs_no_more_than_a_moment_and_appears_when_it_speaks)
{
	struct site site = site_with_two();
	char *file = text(site.stage, "%s/two/lun1.img", site.mnt);

	tgt_freeze(site.two);
	double seconds = seconds_to_mount(&site);
	printf("mounted in %.2f s beside a silent target\n", seconds);
	cr_assert(!exists("%s", file));
	must(site.stage, "grep -q 'two: it does not answer' messages");
	cr_assert_lt(seconds, patience(5), "it waited for the login: %.1f s", seconds);
	tgt_thaw(site.two);
	cr_assert(await(patience(20), path_exists, file), "it did not appear");
	must(site.stage, "cmp -n 4194304 /dev/zero %s", file);
	must_umount(site.stage, site.mnt);
}

Test(site, a_target_that_starts_later_appears_by_itself)
{
	struct site site = site_with_two();
	char *file = text(site.stage, "%s/two/lun1.img", site.mnt);

	tgt_kill(site.two);
	seconds_to_mount(&site);
	cr_assert(!exists("%s", file));
	tgt_restart(site.two);
	serve(site.two, TWO);
	cr_assert(await(patience(25), path_exists, file), "it did not appear");
	must(site.stage, "echo more | dd of=%s conv=notrunc,fsync 2> dd.log", file);
	cr_assert_str_eq(site_status(site.stage, site.mnt, "T['two']['trouble']"), "");
	must_umount(site.stage, site.mnt);
}

Test(site, rescan_dials_a_target_that_is_back_at_once)
{
	struct site site = site_with_two();
	char *file = text(site.stage, "%s/two/lun1.img", site.mnt);

	tgt_kill(site.two);
	seconds_to_mount(&site);
	g_usleep(8000000); /* the pauses between tries have grown */
	tgt_restart(site.two);
	serve(site.two, TWO);
	must_lunfs(site.stage, "rescan %s", site.mnt);
	cr_assert(await(patience(2), path_exists, file), "it did not appear");
	must_umount(site.stage, site.mnt);
}

Test(site, all_of_nothing_but_dead_targets_is_mounted_and_waits)
{
	struct site site = site_with_two();

	tgt_kill(site.one);
	tgt_kill(site.two);
	seconds_to_mount(&site);
	must(site.stage, "test $(wc -l < messages) = 2");
	cr_assert_str_eq(must(site.stage, "ls %s", site.mnt), "by-id\nby-path\none\ntwo");
	must_umount(site.stage, site.mnt);
}

Test(site, one_section_that_cannot_be_reached_is_a_failure)
{
	struct site site = site_with_two();
	struct result *result;

	tgt_kill(site.two);
	result = lunfs(site.stage, "mount two %s", site.mnt);
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, site.two->portal) != NULL, "%s", result->err);
	cr_assert(!is_mounted(site.mnt));
}

Test(site, the_tree_is_listed_from_memory_while_all_targets_are_silent)
{
	struct site site = site_with_two();

	must_lunfs(site.stage, "mount all %s", site.mnt);
	tgt_freeze(site.one);
	tgt_freeze(site.two);
	double before = seconds_now();
	must(site.stage, "timeout 10 ls -lR %s > listing", site.mnt);
	must(site.stage, "timeout 10 %s status %s > status.txt", site.stage->lunfs, site.mnt);
	must(site.stage, "timeout 10 cat %s/.lunfs/status.json > status.json", site.mnt);
	cr_assert_lt(seconds_now() - before, patience(3));
	must(site.stage, "grep -q '4194304.*lun1.img' listing");
	tgt_thaw(site.one);
	tgt_thaw(site.two);
	must_umount(site.stage, site.mnt);
}

Test(site, an_unknown_name_is_one_line_that_names_a_near_one)
{
	struct site site = site_with_two();
	struct result *result = lunfs(site.stage, "mount onee %s", site.mnt);

	cr_assert_neq(result->status, 0);
	cr_assert(strstr(result->err, "'one'") != NULL, "%s", result->err);
	cr_assert_eq(count_words(result->err, "\n"), 1, "%s", result->err);
}

/* ---- fifty targets ---- */

#define TARGETS 50u
#define SILENT  10u
#define LUNS    4u

/* A socket that connects, and says nothing. */
static uint16_t silent_port(void)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	cr_assert(bind(fd, (struct sockaddr *)&address, size) == 0 && listen(fd, 16) == 0);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	return ntohs(address.sin_port);
}

static char *fifty_sections(struct stage *stage, const struct tgt *tgt)
{
	GString *conf = g_string_new(NULL);

	for (unsigned i = 1; i <= TARGETS; i++) {
		bool silent = i % (TARGETS / SILENT) == 0;
		char *portal =
		    silent ? text(stage, "127.0.0.1:%u", silent_port()) : g_strdup(tgt->portal);

		g_string_append_printf(conf, "[target t%u]\nportal=%s\niqn=%s.%u\n", i, portal,
		    "iqn.2026-11.org.lunfs.test:many", i);
	}
	char *result = text(stage, "%s", conf->str);
	g_string_free(conf, TRUE);
	return result;
}

Test(site, fifty_targets_ten_of_them_silent_are_usable_at_once, .timeout = 300)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = tgt_start(stage);
	char *mnt = stage_directory(stage, "mnt", 0);

	for (unsigned i = 1; i <= TARGETS; i++) {
		tgt_add_target(tgt, i, text(stage, "iqn.2026-11.org.lunfs.test:many.%u", i));
		for (unsigned k = 1; k <= LUNS; k++)
			tgt_add_lun(tgt, i, .lun = k, .size = MIB(1));
	}
	site_configure(stage, "%s", fifty_sections(stage, tgt));
	double before = seconds_now();
	must(stage, "%s mount all %s 2> messages", stage->lunfs, mnt);
	double seconds = seconds_now() - before;
	printf("%u targets of %u LUNs, %u silent: mounted in %.2f s\n", TARGETS, LUNS, SILENT,
	    seconds);
	cr_assert_lt(seconds, patience(10));
	cr_assert_str_eq(must(stage, "ls %s/t*/*.img | wc -l", mnt), "160");
	cr_assert_str_eq(must(stage, "ls -d %s/t* | wc -l", mnt), "50");
	tgt_freeze(tgt);
	before = seconds_now();
	must(stage, "timeout 20 ls -lR %s > listing", mnt);
	printf("ls -lR while all targets are silent: %.2f s\n", seconds_now() - before);
	tgt_thaw(tgt);
	must_umount(stage, mnt);
}
