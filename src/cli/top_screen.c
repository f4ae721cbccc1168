/*
 * top_screen.c - what 'lunfs top' shows.
 *
 *   lunfs top 14:05:31  /home/me/san  3 targets, 1 NOT READY, 12 LUNs
 *   read 120/s 12.0 MB/s  write 3/s 0.1 MB/s  dirty 1.2M
 *   FILE                R/s    W/s  RMB/s  WMB/s   p50   p99 dirty hit% latency
 *   nas  ready at 10.0.0.5:3260
 *     lun0.img          120      3   12.0    0.1  80us 1.2ms  1.2M   98 ▁▁▂▁
 *   vault  NOT READY: waiting, for 12 s
 *     10.0.0.6:3260 cannot be reached: ...
 *   q quit  s by activity ...                                              1-4 of 4
 *
 * What targets and mounts are called comes from elsewhere: nothing but printable characters leaves
 * here, each in the columns that are its.
 */
#include "top_screen.h"

#include <string.h>

#define HEAD_LINES 3u
#define FOOT_LINES 1u

#define NAME_LEAST  16u
#define NAME_MOST   44u
#define NUMBERS     51u /* columns of the numbers */
#define SPARK_MIN   12u
#define WHOLE_WIDTH (NAME_LEAST + NUMBERS + 1 + SPARK_MIN)

#define PLAIN   ""
#define BOLD    "\033[1m"
#define REVERSE "\033[7m"
#define ALARM   "\033[1;31m"

struct item {
	const char *attribute;
	char *text;
	const struct top_lun *lun; /* for the order; NULL: stays in front */
};

static void item_free(gpointer data)
{
	struct item *item = data;

	g_free(item->text);
	g_free(item);
}

static void add_item(GPtrArray *items, const char *attribute, char *text, const struct top_lun *lun)
{
	struct item *item = g_new(struct item, 1);

	*item = (struct item){.attribute = attribute, .text = text, .lun = lun};
	g_ptr_array_add(items, item);
}

/* ---- columns ---- */

static unsigned char_columns(gunichar c)
{
	return g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
}

/* What a terminal may get for it. */
static gunichar char_shown(gunichar c, bool utf8)
{
	return !g_unichar_isprint(c) || (c >= 0x80 && !utf8) ? '?' : c;
}

/* Exactly so many columns of text. */
static void append_fitted(GString *out, const char *text, unsigned columns, bool utf8)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	unsigned used = 0;

	for (const char *at = valid; *at != '\0'; at = g_utf8_next_char(at)) {
		gunichar c = char_shown(g_utf8_get_char(at), utf8);

		if (char_columns(c) == 0)
			continue;
		if (used + char_columns(c) > columns)
			break;
		used += char_columns(c);
		g_string_append_unichar(out, c);
	}
	for (; used < columns; used++)
		g_string_append_c(out, ' ');
}

/* The end of a name tells more than its beginning. */
static const char *name_tail(const char *name, unsigned columns, bool *cut)
{
	glong length = g_utf8_strlen(name, -1);

	*cut = length > (glong)columns && columns > 0;
	return *cut ? g_utf8_offset_to_pointer(name, length - (glong)columns + 1) : name;
}

static void append_name(
    GString *out, const char *indent, const char *text, unsigned columns, bool utf8)
{
	g_autofree char *name = g_utf8_make_valid(text, -1);
	unsigned room = columns > strlen(indent) ? columns - (unsigned)strlen(indent) : 0;
	bool cut;
	const char *tail = name_tail(name, room, &cut);
	g_autofree char *whole = g_strconcat(indent, cut ? (utf8 ? "…" : "~") : "", tail, NULL);

	append_fitted(out, whole, columns, utf8);
}

static unsigned name_columns(const struct top_view *view)
{
	unsigned more = view->columns > WHOLE_WIDTH ? view->columns - WHOLE_WIDTH : 0;

	return MIN(NAME_LEAST + more, NAME_MOST);
}

static unsigned spark_columns(const struct top_view *view)
{
	unsigned used = name_columns(view) + NUMBERS + 1;

	return view->columns > used ? MIN(view->columns - used, TOP_HISTORY) : 0;
}

/* ---- numbers, in at most six columns ---- */

typedef char number_text[16];

static const char *format_rate(number_text text, double rate)
{
	if (rate >= 99999.5)
		g_snprintf(text, sizeof(number_text), "%.0fk", rate / 1000);
	else
		g_snprintf(
		    text, sizeof(number_text), rate > 0 && rate < 9.95 ? "%.1f" : "%.0f", rate);
	return text;
}

static const char *format_megabytes(number_text text, double bytes)
{
	double megabytes = bytes / 1000000;

	g_snprintf(text, sizeof(number_text), megabytes > 0 && megabytes < 99.95 ? "%.1f" : "%.0f",
	    megabytes);
	return text;
}

static const char *format_bytes(number_text text, uint64_t bytes)
{
	static const char units[] = "BKMGTPE";
	double value = (double)bytes;
	unsigned unit = 0;

	for (; value >= 1023.5 && units[unit + 1] != '\0'; unit++)
		value /= 1024;
	g_snprintf(text, sizeof(number_text), unit > 0 && value < 9.95 ? "%.1f%c" : "%.0f%c", value,
	    units[unit]);
	return bytes == 0 ? "0" : text;
}

static const char *format_latency(number_text text, uint64_t us)
{
	double ms = (double)us / 1000;

	if (us == 0)
		return "-";
	if (us < 1000)
		g_snprintf(text, sizeof(number_text), "%uus", (unsigned)us);
	else if (us < 1000000)
		g_snprintf(text, sizeof(number_text), ms < 9.95 ? "%.1fms" : "%.0fms", ms);
	else
		g_snprintf(text, sizeof(number_text), ms < 9950 ? "%.1fs" : "%.0fs", ms / 1000);
	return text;
}

/* Each step is four times as long as the one before, from 64 us to 262 ms: so LUNs compare. */
static void append_spark(GString *out, const struct top_lun *lun, unsigned columns, bool utf8)
{
	static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const ascii[] = {"_", ".", "-", ":", "=", "+", "*", "#"};

	for (unsigned i = TOP_HISTORY - columns; i < TOP_HISTORY; i++) {
		uint64_t limit = 64;
		unsigned step = 0;

		for (; step < G_N_ELEMENTS(blocks) - 1 && lun->history[i] > limit; step++)
			limit *= 4;
		g_string_append(out, lun->history[i] == 0 ? " " : (utf8 ? blocks : ascii)[step]);
	}
}

/* ---- the list ---- */

static char *lun_line(
    const struct top_view *view, const struct top_target *target, const struct top_lun *lun)
{
	GString *line = g_string_new(NULL);
	g_autofree char *full =
	    view->by_activity ? g_strdup_printf("%s/%s", target->name, lun->file) : NULL;
	number_text n[7], hits = "-";

	if (lun->hit_percent >= 0)
		g_snprintf(hits, sizeof hits, "%d", lun->hit_percent);
	append_name(line, view->by_activity ? "" : "  ", full != NULL ? full : lun->file,
	    name_columns(view), view->utf8);
	g_string_append_printf(line, " %6s %6s %6s %6s %5s %5s %5s %4s ",
	    format_rate(n[0], lun->reads), format_rate(n[1], lun->writes),
	    format_megabytes(n[2], lun->bytes_read), format_megabytes(n[3], lun->bytes_written),
	    format_latency(n[4], lun->p50_us), format_latency(n[5], lun->p99_us),
	    format_bytes(n[6], lun->dirty), hits);
	append_spark(line, lun, spark_columns(view), view->utf8);
	return g_string_free(line, FALSE);
}

static void add_lun(GPtrArray *items, const struct top_view *view, const struct top_target *target,
    const struct top_lun *lun)
{
	add_item(items, lun->trouble[0] != '\0' ? ALARM : PLAIN, lun_line(view, target, lun), lun);
	if (lun->trouble[0] != '\0' && !view->by_activity)
		add_item(items, PLAIN, g_strconcat("    ", lun->trouble, NULL), NULL);
}

static void add_target(GPtrArray *items, const struct top_target *target)
{
	if (target->ready) {
		add_item(items, BOLD,
		    g_strdup_printf("%s  %s at %s", target->name, target->state, target->address),
		    NULL);
		return;
	}
	add_item(items, ALARM,
	    target->outage_ms > 0
	        ? g_strdup_printf("%s  NOT READY: %s, for %u s", target->name, target->state,
	              (unsigned)(target->outage_ms / 1000))
	        : g_strdup_printf("%s  NOT READY: %s", target->name, target->state),
	    NULL);
	if (target->reason[0] != '\0')
		add_item(items, PLAIN, g_strconcat("  ", target->reason, NULL), NULL);
}

static void add_mount(GPtrArray *items, const struct top_mount *mount, bool alone)
{
	if (mount->gone || mount->silent)
		add_item(items, ALARM,
		    g_strdup_printf("%s: %s", mount->mountpoint,
		        mount->gone ? "is not mounted any more" : "its process does not answer"),
		    NULL);
	else if (!alone)
		add_item(items, REVERSE, g_strdup(mount->mountpoint), NULL);
}

static double activity(const struct item *item)
{
	return item->lun->reads + item->lun->writes;
}

static gint compare_activity(gconstpointer a, gconstpointer b)
{
	double x = activity(*(struct item *const *)a), y = activity(*(struct item *const *)b);

	return x < y ? 1 : x > y ? -1 : 0;
}

/* Where sorted: what is not well first, then the LUNs; g_ptr_array_sort() keeps the order of
 * equals. */
static GPtrArray *list_make(const GPtrArray *mounts, const struct top_view *view)
{
	GPtrArray *items = g_ptr_array_new_with_free_func(item_free);
	GPtrArray *sorted = g_ptr_array_new();

	for (unsigned i = 0; i < mounts->len; i++) {
		const struct top_mount *mount = g_ptr_array_index(mounts, i);

		add_mount(items, mount, mounts->len == 1 || view->by_activity);
		for (unsigned k = 0; k < mount->targets->len; k++) {
			const struct top_target *target = g_ptr_array_index(mount->targets, k);

			if (!view->by_activity || !target->ready)
				add_target(items, target);
			for (unsigned l = 0; l < target->luns->len; l++)
				add_lun(view->by_activity ? sorted : items, view, target,
				    g_ptr_array_index(target->luns, l));
		}
	}
	g_ptr_array_sort(sorted, compare_activity);
	g_ptr_array_extend_and_steal(items, sorted);
	return items;
}

/* ---- the screen ---- */

static void put_line(GString *out, const struct top_view *view, unsigned line,
    const char *attribute, const char *text)
{
	if (line > view->lines)
		return;
	g_string_append_printf(out, "\033[%u;1H%s", line, attribute);
	append_fitted(out, text, view->columns, view->utf8);
	if (attribute[0] != '\0')
		g_string_append(out, "\033[0m");
}

static void put_head(GString *out, const GPtrArray *mounts, const struct top_view *view)
{
	unsigned targets = 0, away = 0, luns = 0;
	double reads = 0, writes = 0, bytes_read = 0, bytes_written = 0;
	uint64_t dirty = 0;
	number_text n[5];

	for (unsigned i = 0; i < mounts->len; i++) {
		const struct top_mount *mount = g_ptr_array_index(mounts, i);

		for (unsigned k = 0; k < mount->targets->len; k++, targets++) {
			const struct top_target *target = g_ptr_array_index(mount->targets, k);

			away += !target->ready;
			for (unsigned l = 0; l < target->luns->len; l++, luns++) {
				const struct top_lun *lun = g_ptr_array_index(target->luns, l);

				reads += lun->reads;
				writes += lun->writes;
				bytes_read += lun->bytes_read;
				bytes_written += lun->bytes_written;
				dirty += lun->dirty;
			}
		}
	}
	g_autofree char *many = g_strdup_printf("%u mounts", mounts->len);
	g_autofree char *dead = away > 0 ? g_strdup_printf(", %u NOT READY", away) : g_strdup("");
	g_autofree char *first = g_strdup_printf("lunfs top %s  %u target%s%s, %u LUN%s  %s",
	    view->clock, targets, targets == 1 ? "" : "s", dead, luns, luns == 1 ? "" : "s",
	    mounts->len == 1 ? ((struct top_mount *)g_ptr_array_index(mounts, 0))->mountpoint
	                     : many);
	g_autofree char *second = g_strdup_printf(
	    "read %s/s %s MB/s  write %s/s %s MB/s  not written yet %s", format_rate(n[0], reads),
	    format_megabytes(n[1], bytes_read), format_rate(n[2], writes),
	    format_megabytes(n[3], bytes_written), format_bytes(n[4], dirty));
	put_line(out, view, 1, away > 0 ? ALARM : BOLD, first);
	put_line(out, view, 2, PLAIN, second);
}

static void put_columns(GString *out, const struct top_view *view)
{
	g_autoptr(GString) line = g_string_new(NULL);

	append_fitted(line, "FILE", name_columns(view), view->utf8);
	g_string_append_printf(line, " %6s %6s %6s %6s %5s %5s %5s %4s %s", "R/s", "W/s", "RMB/s",
	    "WMB/s", "p50", "p99", "dirty", "hit%", "latency");
	put_line(out, view, 3, REVERSE, line->str);
}

static void put_foot(GString *out, const struct top_view *view, unsigned shown, unsigned all)
{
	g_autofree char *place =
	    g_strdup_printf("%u-%u of %u", MIN(view->scroll + 1, all), view->scroll + shown, all);
	const char *keys = view->utf8 ? "↑ ↓ PgUp PgDn" : "up down PgUp PgDn";
	g_autofree char *text = g_strdup_printf("q quit   s %s   %s   %s",
	    view->by_activity ? "by target" : "by activity", keys, place);

	if (view->lines > HEAD_LINES)
		put_line(out, view, view->lines, REVERSE, text);
}

unsigned top_page(const struct top_view *view)
{
	unsigned others = HEAD_LINES + FOOT_LINES;

	return view->lines > others ? view->lines - others : 0;
}

char *top_screen(const GPtrArray *mounts, struct top_view *view)
{
	GString *out = g_string_new(NULL);
	g_autoptr(GPtrArray) items = list_make(mounts, view);
	unsigned page = top_page(view);
	unsigned furthest = items->len > page ? items->len - page : 0;

	view->scroll = MIN(view->scroll, furthest);
	put_head(out, mounts, view);
	put_columns(out, view);
	for (unsigned i = 0; i < page; i++) {
		const struct item *item = view->scroll + i < items->len
		                              ? g_ptr_array_index(items, view->scroll + i)
		                              : NULL;

		put_line(out, view, HEAD_LINES + 1 + i, item != NULL ? item->attribute : PLAIN,
		    item != NULL ? item->text : "");
	}
	put_foot(out, view, MIN(page, items->len), items->len);
	return g_string_free(out, FALSE);
}
