/*
 * test_top.c - what 'lunfs top' makes of rows, and how it shows them.
 */
#include "../../src/cli/top_screen.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "support/data.h"

#define SECOND 1000000

/* ---- rows ---- */

static GHashTable *row(const char *event, ...)
{
	GHashTable *row = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
	const char *name;
	va_list pairs;

	g_hash_table_insert(row, (char *)"event", g_strdup(event));
	va_start(pairs, event);
	while ((name = va_arg(pairs, const char *)) != NULL)
		g_hash_table_insert(row, (char *)name, g_strdup(va_arg(pairs, const char *)));
	va_end(pairs);
	return row;
}

static bool take(struct top_mount *mount, int64_t now_us, GHashTable *row)
{
	bool done = top_mount_take(mount, row, now_us);

	g_hash_table_unref(row);
	return done;
}

static void take_target(struct top_mount *mount, const char *name, bool ready)
{
	take(mount, 0,
	    row("target", "target", name, "state", ready ? "ready" : "waiting", "ready",
	        ready ? "1" : "0", "address", "10.0.0.5:3260", "outage_ms", ready ? "0" : "12500",
	        "trouble", "", "last_error", ready ? "" : "10.0.0.5:3260 cannot be reached", NULL));
}

/* Counters that all have the same value. */
static void take_lun(struct top_mount *mount, const char *target, const char *file,
    unsigned counters, const char *latency, int64_t now_us)
{
	g_autofree char *n = g_strdup_printf("%u", counters);
	g_autofree char *bytes = g_strdup_printf("%u000000", counters);

	take(mount, now_us,
	    row("lun", "target", target, "file", file, "reads", n, "writes", n, "bytes_read", bytes,
	        "bytes_written", bytes, "dirty_bytes", "1536", "cache_hits", n, "cache_misses", n,
	        "read_latency", latency, "write_latency", "", "trouble", "", NULL));
}

static bool take_done(struct top_mount *mount)
{
	return take(mount, 0, row("done", "error", "", NULL));
}

static struct top_lun *first_lun(struct top_mount *mount)
{
	struct top_target *target = g_ptr_array_index(mount->targets, 0);

	return g_ptr_array_index(target->luns, 0);
}

Test(top, rates_are_of_the_last_interval)
{
	struct top_mount *mount = top_mount_new("/mnt");

	take_target(mount, "nas", true);
	take_lun(mount, "nas", "lun0.img", 1000, "64:1000", 10 * SECOND);
	cr_assert(take_done(mount));
	cr_assert_eq(first_lun(mount)->reads, 0, "nobody knows since when");
	cr_assert_eq(first_lun(mount)->p99_us, 0);
	cr_assert_eq(first_lun(mount)->hit_percent, -1);

	take_target(mount, "nas", true);
	take_lun(mount, "nas", "lun0.img", 1100, "64:1000 1024:99 4096:1", 12 * SECOND);
	cr_assert(take_done(mount));
	const struct top_lun *lun = first_lun(mount);
	cr_assert_eq(lun->reads, 50);
	cr_assert_eq(lun->bytes_written, 50e6);
	cr_assert_eq(lun->p50_us, 1024);
	cr_assert_eq(lun->p99_us, 1024);
	cr_assert_eq(lun->hit_percent, 50);
	cr_assert_eq(lun->history[TOP_HISTORY - 1], 1024);
	cr_assert_eq(lun->history[TOP_HISTORY - 2], 0);

	/* its counters began anew */
	take_target(mount, "nas", true);
	take_lun(mount, "nas", "lun0.img", 3, "64:3", 13 * SECOND);
	take_done(mount);
	cr_assert_eq(lun->reads, 0);
	cr_assert_eq(lun->hit_percent, -1);
	top_mount_free(mount);
}

Test(top, what_is_told_of_no_more_is_gone)
{
	struct top_mount *mount = top_mount_new("/mnt");

	take_target(mount, "a", true);
	take_lun(mount, "a", "lun0.img", 1, "", 1);
	take_lun(mount, "a", "lun1.img", 1, "", 1);
	take_target(mount, "b", true);
	take_lun(mount, "b", "lun0.img", 1, "", 1);
	take_done(mount);
	cr_assert_eq(mount->targets->len, 2);
	take_target(mount, "a", true);
	take_lun(mount, "a", "lun1.img", 1, "", 2);
	take_done(mount);
	cr_assert_eq(mount->targets->len, 1);
	cr_assert_eq(((struct top_target *)g_ptr_array_index(mount->targets, 0))->luns->len, 1);
	cr_assert_str_eq(first_lun(mount)->file, "lun1.img");
	/* rows that lack everything */
	take(mount, 3, row("target", NULL));
	take(mount, 3, row("lun", NULL));
	take(mount, 3, row("unheard of", NULL));
	cr_assert(take_done(mount));
	top_mount_free(mount);
}

/* ---- the screen ---- */

/* What a terminal shows that knows no more than we use: places, and attributes that are left out.
 */
struct shown {
	unsigned lines, columns;
	GPtrArray *text; /* of GString, a line each */
};

static struct shown show(const GPtrArray *mounts, struct top_view *view)
{
	struct shown shown = {view->lines, view->columns, g_ptr_array_new()};
	g_autofree char *bytes = top_screen(mounts, view);
	unsigned line = 0;

	for (unsigned i = 0; i < view->lines; i++)
		g_ptr_array_add(shown.text, g_string_new(NULL));
	for (const char *at = bytes; *at != '\0';) {
		if (*at == '\033') {
			unsigned place, column, length = (unsigned)strcspn(at, "Hm") + 1;

			if (at[length - 1] == 'H') {
				cr_assert_eq(sscanf(at, "\033[%u;%uH", &place, &column), 2);
				cr_assert(place >= 1 && place <= view->lines && column == 1);
				line = place - 1;
			}
			at += length;
			continue;
		}
		const char *next = g_utf8_next_char(at);
		cr_assert(g_unichar_isprint(g_utf8_get_char(at)), "a control character: %s", at);
		g_string_append_len(g_ptr_array_index(shown.text, line), at, next - at);
		at = next;
	}
	for (unsigned i = 0; i < view->lines; i++) {
		const GString *text = g_ptr_array_index(shown.text, i);
		unsigned columns = 0;

		for (const char *c = text->str; *c; c = g_utf8_next_char(c))
			columns += g_unichar_iswide(g_utf8_get_char(c)) ? 2 : 1;
		cr_assert_eq(
		    columns, view->columns, "line %u has %u columns: '%s'", i, columns, text->str);
	}
	return shown;
}

static void shown_free(struct shown *shown)
{
	for (unsigned i = 0; i < shown->lines; i++)
		g_string_free(g_ptr_array_index(shown->text, i), TRUE);
	g_ptr_array_unref(shown->text);
}

static const char *line_of(const struct shown *shown, unsigned line)
{
	return ((GString *)g_ptr_array_index(shown->text, line))->str;
}

static bool shows(const struct shown *shown, const char *words)
{
	for (unsigned i = 0; i < shown->lines; i++)
		if (strstr(line_of(shown, i), words))
			return true;
	return false;
}

/* Two targets, one of them away; the first with so many LUNs, the later the busier. */
static GPtrArray *two_targets(unsigned luns)
{
	GPtrArray *mounts = g_ptr_array_new_with_free_func(top_mount_free);
	struct top_mount *mount = top_mount_new("/home/me/san");

	for (unsigned round = 0; round < 2; round++) {
		take_target(mount, "nas", true);
		for (unsigned i = 0; i < luns; i++) {
			g_autofree char *file = g_strdup_printf("lun%u.img", i);

			take_lun(mount, "nas", file, round * (i + 1),
			    round ? "64:10 1000000:1" : "", (int64_t)(round + 1) * SECOND);
		}
		take_target(mount, "vault", false);
		take_done(mount);
	}
	g_ptr_array_add(mounts, mount);
	return mounts;
}

Test(top, shows_it_all_at_80x24)
{
	g_autoptr(GPtrArray) mounts = two_targets(2);
	struct top_view view = {.lines = 24, .columns = 80, .utf8 = true, .clock = "14:05:31"};
	struct shown shown = show(mounts, &view);

	cr_assert(g_str_has_prefix(line_of(&shown, 0),
	    "lunfs top 14:05:31  2 targets, 1 NOT READY, 2 LUNs  /home/me/san "));
	cr_assert(g_str_has_prefix(line_of(&shown, 1),
	              "read 3.0/s 3.0 MB/s  write 3.0/s 3.0 MB/s  not written yet 3.0K "),
	    "%s", line_of(&shown, 1));
	cr_assert(g_str_has_prefix(line_of(&shown, 3), "nas  ready at 10.0.0.5:3260 "));
	cr_assert_str_eq(line_of(&shown, 5),
	    "  lun1.img          2.0    2.0    2.0    2.0  64us  1.0s  1.5K   50            █");
	cr_assert(g_str_has_prefix(line_of(&shown, 6), "vault  NOT READY: waiting, for 12 s "));
	cr_assert(g_str_has_prefix(line_of(&shown, 7), "  10.0.0.5:3260 cannot be reached "));
	cr_assert(g_str_has_prefix(line_of(&shown, 23), "q quit "));
	cr_assert(shows(&shown, "1-5 of 5"));
	shown_free(&shown);
}

Test(top, sends_ASCII_alone_where_the_terminal_knows_no_more)
{
	g_autoptr(GPtrArray) mounts = two_targets(2);
	struct top_view view = {.lines = 24, .columns = 80, .clock = ""};

	((struct top_lun *)first_lun(g_ptr_array_index(mounts, 0)))->history[TOP_HISTORY - 2] = 60;
	take_target(g_ptr_array_index(mounts, 0), "größe \xff", false);
	g_autofree char *bytes = top_screen(mounts, &view);
	for (const char *c = bytes; *c; c++)
		cr_assert_lt((unsigned char)*c, 0x80, "%s", c);
	struct shown shown = show(mounts, &view);
	cr_assert(shows(&shown, "_#"), "%s", line_of(&shown, 4));
	cr_assert(shows(&shown, "gr??e ? "));
	shown_free(&shown);
}

Test(top, fits_any_terminal)
{
	g_autoptr(GPtrArray) mounts = two_targets(30);
	struct dice dice = {9};

	for (unsigned i = 0; i < 300; i++) {
		struct top_view view = {.lines = (unsigned)dice_between(&dice, 1, 60),
		    .columns = (unsigned)dice_between(&dice, 1, 200),
		    .utf8 = i % 2,
		    .by_activity = i % 3 == 0,
		    .scroll = (unsigned)dice_between(&dice, 0, 60),
		    .clock = "14:05:31"};
		struct shown shown = show(mounts, &view);

		cr_assert_leq(view.scroll, 34);
		shown_free(&shown);
	}
}

Test(top, scrolls_to_the_last_line_and_no_further)
{
	g_autoptr(GPtrArray) mounts = two_targets(100);
	struct top_view view = {.lines = 24, .columns = 80, .scroll = 1000, .clock = ""};
	struct shown shown = show(mounts, &view);

	cr_assert_eq(top_page(&view), 20);
	cr_assert_eq(view.scroll, 83);
	cr_assert(g_str_has_prefix(line_of(&shown, 22), "  10.0.0.5:3260 cannot be reached "));
	cr_assert(shows(&shown, "84-103 of 103"));
	cr_assert(g_str_has_prefix(line_of(&shown, 0), "lunfs top "), "the head stays");
	cr_assert(shows(&shown, "1 NOT READY"));
	shown_free(&shown);
}

Test(top, sorted_the_dead_come_first_and_then_the_busiest)
{
	g_autoptr(GPtrArray) mounts = two_targets(100);
	struct top_view view = {.lines = 24, .columns = 80, .by_activity = true, .clock = ""};
	struct shown shown = show(mounts, &view);

	cr_assert(g_str_has_prefix(line_of(&shown, 3), "vault  NOT READY"));
	cr_assert(g_str_has_prefix(line_of(&shown, 5), "nas/lun99.img "), "%s", line_of(&shown, 5));
	cr_assert(g_str_has_prefix(line_of(&shown, 6), "nas/lun98.img "));
	shown_free(&shown);
}

Test(top, nothing_that_a_target_says_reaches_the_terminal_as_a_command)
{
	GPtrArray *mounts = g_ptr_array_new_with_free_func(top_mount_free);
	struct top_mount *mount = top_mount_new("/mnt\033[2J");
	struct dice dice = {3};
	char words[60];

	g_ptr_array_add(mounts, mount);
	g_ptr_array_add(mounts, top_mount_new("\xc2\x9b"
	                                      "31m"));
	for (unsigned i = 0; i < 20; i++) {
		dice_fill(&dice, words, sizeof words - 1);
		words[sizeof words - 1] = '\0';
		take(mount, 1,
		    row("target", "target", words, "state", words, "ready", i % 2 ? "1" : "0",
		        "address", words, "trouble", words, NULL));
		take(mount, 1, row("lun", "target", words, "file", words, "trouble", words, NULL));
	}
	take_done(mount);
	for (unsigned i = 0; i < 4; i++) {
		struct top_view view = {.lines = 100,
		    .columns = 80 + i,
		    .utf8 = i % 2,
		    .by_activity = i / 2,
		    .clock = ""};
		struct shown shown = show(mounts, &view); /* which looks */

		shown_free(&shown);
	}
	g_ptr_array_unref(mounts);
}

Test(top, a_long_name_shows_its_end)
{
	GPtrArray *mounts = g_ptr_array_new_with_free_func(top_mount_free);
	struct top_mount *mount = top_mount_new("/mnt");
	struct top_view view = {
	    .lines = 24, .columns = 80, .utf8 = true, .by_activity = true, .clock = ""};

	g_ptr_array_add(mounts, mount);
	take_target(mount, "iqn.2026-01.org.example:a-long-name", true);
	take_lun(mount, "iqn.2026-01.org.example:a-long-name", "lun12.img", 0, "", 1);
	take_done(mount);
	struct shown shown = show(mounts, &view);
	cr_assert(
	    g_str_has_prefix(line_of(&shown, 3), "…-name/lun12.img "), "%s", line_of(&shown, 3));
	shown_free(&shown);
	g_ptr_array_unref(mounts);
}
