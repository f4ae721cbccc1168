/*
 * status.c - what a mount tells of itself: text, JSON that follows its schema, metrics.
 */
#include "support/data.h"
#include "support/script_scene.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../src/mount/control.h"
#include "lunfs/mount.h"

TestSuite(status, .timeout = 120);

/* A file of the source folder, which the tests run in. */
static char *source_file(struct stage *stage, const char *name)
{
	g_autofree char *path = g_canonicalize_filename(name, NULL);

	cr_assert(g_file_test(path, G_FILE_TEST_EXISTS),
	    "run the tests in the source folder: no %s", path);
	return text(stage, "%s", path);
}

static struct result *check(struct stage *stage, const char *words, const char *input)
{
	char *file = text(stage, "%s/told", stage->dir);

	cr_assert(g_file_set_contents(file, input, -1, NULL));
	return sh(stage, "/usr/bin/python3 %s %s <%s",
	    source_file(stage, "tests/support/check-status"), words, file);
}

static void must_follow_the_schema(struct stage *stage, const char *json)
{
	struct result *result = check(stage,
	    text(stage, "json %s", source_file(stage, "packaging/status.schema.json")), json);

	cr_assert_eq(result->status, 0, "%s%s", result->err, json);
}

/* 'lunfs status --json' of it, which must follow the schema. */
static char *json_of(const struct scene *scene)
{
	char *json = must_lunfs(scene->stage, "status --json %s", scene->mnt);

	must_follow_the_schema(scene->stage, json);
	return json;
}

static void must_say(const char *said, const char *words)
{
	cr_assert(strstr(said, words), "'%s' is not in: %s", words, said);
}

/* What the mount's process answers. */
static char *ask(const struct scene *scene, const char *command)
{
	g_autofree char *request = g_strdup_printf("{\"command\": \"%s\"}\n", command);
	struct mounted *mounted = mounted_find(scene->mnt);
	g_autofree char *line = NULL;
	size_t size = 0;

	cr_assert_not_null(mounted);
	int fd = control_connect(mounted);
	mounted_free(mounted);
	cr_assert_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
	FILE *stream = fdopen(fd, "r");
	cr_assert(getline(&line, &size, stream) > 0);
	fclose(stream);
	g_autoptr(GHashTable) answer = control_parse(line);
	cr_assert_not_null(answer, "%s", line);
	return text(scene->stage, "%s", (char *)g_hash_table_lookup(answer, "text"));
}

static struct scene mounted_with(const struct script_parameters *parameters, const char *options)
{
	struct scene scene = scene_of_script(MIB(1));

	if (parameters)
		script_target_set(scene.script, parameters);
	scene_mount(&scene, options);
	return scene;
}

static void read_and_write(const struct scene *scene)
{
	unsigned char *bytes = aligned_buffer(KIB(64));
	int fd = must_open(scene->file, O_RDWR | O_DIRECT);

	must_pwrite(fd, bytes, KIB(64), 0);
	cr_assert_eq(fsync(fd), 0);
	must_pread(fd, bytes, KIB(64), KIB(512));
	close(fd);
}

/* ---- JSON ---- */

Test(status, json_follows_its_schema_whatever_the_options)
{
	static const char *const options[] = {NULL, "cache=none", "ro", "shared",
	    "cache=writethrough,readahead=0,replacement_timeout=infinity,header_digest=none"};

	for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
		struct scene scene = mounted_with(NULL, options[i]);

		must_say(json_of(&scene), "\"ready\": true");
		if (i != 2)
			read_and_write(&scene);
		must_say(json_of(&scene), i == 4 ? "\"replacement_timeout_ms\": null"
		                                 : "\"replacement_timeout_ms\": 120000");
		scene_end(&scene);
	}
}

Test(status, a_schema_that_lags_behind_is_found_out)
{
	struct stage *stage = stage_new();
	char *schema = text(stage, "json %s", source_file(stage, "packaging/status.schema.json"));

	cr_assert_neq(check(stage, schema, "{}\n")->status, 0);
	cr_assert_neq(check(stage, schema, "")->status, 0);
	cr_assert_neq(check(stage, schema, "{\"schema_version\": 1,}\n")->status, 0);
}

static bool is_away(void *data)
{
	return strcmp(status_of(data, "ready"), "false") == 0;
}

Test(status, a_target_that_went_away_is_told_so_first_and_loudly)
{
	struct scene scene = mounted_with(NULL, NULL);

	read_and_write(&scene);
	script_target_listen(scene.script, false);
	script_target_drop(scene.script, SCRIPT_RST);
	cr_assert(await(10, is_away, &scene));
	char *json = json_of(&scene), *said = must_lunfs(scene.stage, "status %s", scene.mnt);
	must_say(json, "\"address\": \"\"");
	must_say(json, "\"MaxBurstLength\": 262144"); /* the last that was agreed on */
	must_say(said, "\n" SCENE_IQN ": NOT READY, ");
	must_say(said, "1 outage, the present one since ");
	must_say(ask(&scene, "metrics"), "\nlunfs_target_up{target=\"" SCENE_IQN "\"} 0\n");
	script_target_listen(scene.script, true);
	scene_end(&scene);
}

Test(status, a_target_whose_session_never_stood_is_valid_too)
{
	struct stage *stage = stage_new();
	struct script_target *here = script_target_start(SCENE_IQN);
	struct script_target *dead = script_target_start("iqn.2026-01.org.lunfs:dead");

	script_target_add_lun(here, 1, MIB(1), 512);
	script_target_add_neighbour(here, dead);
	script_target_listen(dead, false);
	struct scene scene = {.stage = stage};
	scene.mnt = must_mount_lunfs(stage,
	    text(stage, "iscsi://127.0.0.1:%u", script_target_port(here)), "login_timeout=2s");
	char *json = json_of(&scene), *said = must_lunfs(stage, "status %s", scene.mnt);
	must_say(json, "\"since\": \"\"");
	must_say(json, "\"negotiated\": {}");
	must_say(said, "2 targets, 1 NOT READY: iqn.2026-01.org.lunfs:dead\n");
	must_say(said, "\niqn.2026-01.org.lunfs:dead: NOT READY, ");
	cr_assert_eq(check(stage, "metrics", ask(&scene, "metrics"))->status, 0);
	must_umount(stage, scene.mnt);
	script_target_stop(dead);
	script_target_stop(here);
}

Test(status, what_a_hostile_target_calls_itself_spoils_nothing)
{
	struct script_parameters names = {
	    .alias = "\033]0;x\a\xff\xc2\x9b\"\\\n, \"ready\": \x7f {"};
	struct scene scene = scene_of_script(MIB(1));
	struct script_identity identity = {.serial = "\"\033[2J\xff\xfe\\\n\xe2\x80\xae,]}"};

	script_target_set(scene.script, &names);
	script_target_identity(scene.script, 1, &identity, false);
	scene_mount(&scene, NULL);
	char *json = json_of(&scene), *said = must_lunfs(scene.stage, "status %s", scene.mnt);
	cr_assert(g_utf8_validate(json, -1, NULL) && g_utf8_validate(said, -1, NULL));
	must_say(json, "\"TargetAlias\": \"?]0;x?");
	for (const char *c = said; *c; c = g_utf8_next_char(c))
		cr_assert(*c == '\n' || g_unichar_isprint(g_utf8_get_char(c)), "%s", said);
	struct result *result = check(scene.stage, "metrics", ask(&scene, "metrics"));
	cr_assert_eq(result->status, 0, "%s", result->err);
	scene_end(&scene);
}

/* ---- what it tells ---- */

Test(status, tells_what_was_negotiated)
{
	struct scene scene = mounted_with(&(struct script_parameters){.tag = 7,
	                                      .receive_segment = 8192,
	                                      .first_burst = 16384,
	                                      .max_burst = 131072,
	                                      .initial_r2t = true,
	                                      .no_immediate_data = true,
	                                      .time2wait = 3,
	                                      .alias = "the nas"},
	    NULL);
	char *json = json_of(&scene), *said = must_lunfs(scene.stage, "status %s", scene.mnt);

	must_say(json, "\"TargetPortalGroupTag\": 7, ");
	must_say(json, "\"MaxXmitDataSegmentLength\": 8192, ");
	must_say(json, "\"MaxRecvDataSegmentLength\": 262144, ");
	must_say(json, "\"FirstBurstLength\": 16384, ");
	must_say(json, "\"MaxBurstLength\": 131072, ");
	must_say(json, "\"InitialR2T\": true, ");
	must_say(json, "\"ImmediateData\": false, ");
	must_say(json, "\"DefaultTime2Wait\": 3, ");
	must_say(json, "\"CHAP\": \"none\"");
	must_say(said, " MaxXmitDataSegmentLength 8192,");
	must_say(said, " TPGT 7,");
	must_say(said, " TargetAlias the nas,");
	must_say(said, "  settings: rw, cache=writeback, dirty_expire=5s, readahead=auto,\n");
	g_auto(GStrv) lines = g_strsplit(strstr(said, "  negotiated:"), "  lun1", 2);
	g_auto(GStrv) wrapped = g_strsplit(lines[0], "\n", -1);
	for (char **line = wrapped; *line; line++)
		cr_assert_leq(strlen(*line), 80, "%s", *line);
	scene_end(&scene);
}

Test(status, tells_who_proved_who_they_are_and_no_secret)
{
	struct scene scene = {.stage = stage_new()};

	scene.tgt = tgt_start(scene.stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	tgt_add_lun(scene.tgt, 1, .lun = 1, .size = MIB(1));
	tgt_chap(scene.tgt, 1, "initiator", "initiators-1234");
	tgt_chap_outgoing(scene.tgt, 1, "target", "targets-567890");
	must(scene.stage, "umask 077; echo initiators-1234 > out; echo targets-567890 > in");
	static const char *const options[][2] = {
	    {"username=initiator,password_file=%s/out", "one-way"},
	    {"username=initiator,password_file=%s/out,username_in=target,password_in_file=%s/in",
	        "mutual"}};
	for (unsigned i = 0; i < 2; i++) {
		g_auto(GStrv) parts = g_strsplit(options[i][0], "%s", -1);
		g_autofree char *words = g_strjoinv(scene.stage->dir, parts);

		scene.mnt = must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), words);
		char *json = json_of(&scene),
		     *said = must_lunfs(scene.stage, "status %s", scene.mnt);
		must_say(json, text(scene.stage, "\"CHAP\": \"%s\"", options[i][1]));
		must_say(json, "\"AuthMethod\": \"CHAP\"");
		must_say(said, text(scene.stage, "AuthMethod CHAP (%s", options[i][1]));
		char *metrics = ask(&scene, "metrics");
		for (const char *const *out = (const char *const[]){json, said, metrics, NULL};
		     *out; out++)
			cr_assert(!strstr(*out, "1234") && !strstr(*out, "567890"), "%s", *out);
		must_umount(scene.stage, scene.mnt);
	}
}

Test(status, tells_how_long_commands_take)
{
	struct scene scene = mounted_with(NULL, "cache=none");
	unsigned char *bytes = aligned_buffer(KIB(64));
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);

	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_READ, .answer_delay_ms = 50});
	for (unsigned i = 0; i < 5; i++)
		must_pread(fd, bytes, 4096, i * 4096);
	close(fd);
	char *json = json_of(&scene);
	const char *read = strstr(json, "\"latency\": {\"read\": ");
	unsigned long p50, p99, count;
	cr_assert_eq(
	    sscanf(read,
	        "\"latency\": {\"read\": {\"p50_us\": %lu, \"p99_us\": %lu, \"count\": %lu}", &p50,
	        &p99, &count),
	    3, "%s", json);
	cr_assert_geq(count, 5);
	cr_assert(p50 >= 50000 && p99 >= p50, "p50 %lu us, p99 %lu us", p50, p99);
	must_say(must_lunfs(scene.stage, "status %s", scene.mnt), "    latency: read p50 ");
	scene_end(&scene);
}

Test(status, of_many_LUNs_comes_whole)
{
	struct scene scene = {.stage = stage_new(), .script = script_target_start(SCENE_IQN)};

	for (unsigned i = 0; i < 256; i++)
		script_target_add_lun(scene.script, i, MIB(1), 512);
	scene_mount(&scene, NULL);
	char *json = json_of(&scene);
	cr_assert_eq(count_words(json, "\"file\": \"lun"), 256);
	cr_assert_gt(strlen(json), 200000);
	cr_assert_eq(count_words(must_lunfs(scene.stage, "status"), "    cache: "), 256);
	struct result *result = check(scene.stage, "metrics", ask(&scene, "metrics"));
	cr_assert_eq(result->status, 0, "%s", result->err);
	scene_end(&scene);
}

/* ---- metrics ---- */

Test(status, metrics_are_what_prometheus_reads)
{
	struct scene scene = mounted_with(NULL, "cache=none");

	read_and_write(&scene);
	char *metrics = ask(&scene, "metrics");
	struct result *result = check(scene.stage, "metrics", metrics);
	cr_assert_eq(result->status, 0, "%s\n%s", result->err, metrics);
#define LABELS "{target=\"" SCENE_IQN "\",lun=\"1\",file=\"lun1.img\""
	must_say(metrics, "\nlunfs_target_up{target=\"" SCENE_IQN "\"} 1\n");
	must_say(metrics, "\nlunfs_lun_size_bytes" LABELS "} 1048576\n");
	must_say(metrics, "\nlunfs_lun_written_bytes_total" LABELS "} 65536\n");
	must_say(metrics,
	    "\nlunfs_lun_command_duration_seconds_count" LABELS ",operation=\"write\"} 1\n");
	must_say(metrics, "\nlunfs_lun_command_duration_seconds_bucket" LABELS
	                  ",operation=\"write\",le=\"+Inf\"} 1\n");
	must_say(metrics, ",le=\"0.004096\"} ");
	scene_end(&scene);
}

Test(status, the_metrics_checker_finds_what_is_wrong)
{
#define A "# HELP lunfs_a_total A.\n# TYPE lunfs_a_total counter\n"
#define H "# HELP lunfs_h H.\n# TYPE lunfs_h histogram\n"
	static const char *const wrong[] = {"", "\n", A "lunfs_a_total 1", A "lunfs_a_total -1\n",
	    A "lunfs_a_total{x=\"\\x\"} 1\n", A "lunfs_a_total{x=\"1\",x=\"2\"} 1\n",
	    A "lunfs_a_total 1\nlunfs_a_total 2\n", A "lunfs_b 1\n", A A "lunfs_a_total 1\n",
	    "# HELP lunfs_a A.\n# TYPE lunfs_a counter\nlunfs_a 1\n",
	    H "lunfs_h_bucket{le=\"1\"} 1\nlunfs_h_sum 1\nlunfs_h_count 1\n",
	    H "lunfs_h_bucket{le=\"1\"} 2\nlunfs_h_bucket{le=\"+Inf\"} 1\nlunfs_h_sum "
	      "1\nlunfs_h_count 1\n"};
	struct stage *stage = stage_new();

	for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++)
		cr_assert_neq(check(stage, "metrics", wrong[i])->status, 0, "%s", wrong[i]);
	struct result *right = check(stage, "metrics",
	    A "lunfs_a_total{x=\"\\\"\"} 1\n" H "lunfs_h_bucket{le=\"1\"} 1\n"
	      "lunfs_h_bucket{le=\"+Inf\"} 1\nlunfs_h_sum 0.5\nlunfs_h_count 1\n");
	cr_assert_eq(right->status, 0, "%s", right->err);
}
