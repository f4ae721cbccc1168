/*
 * churn.c - a mount of 'all' while everything about it changes, and I/O goes on.
 *
 * Four targets on two tgtds. The director adds and deletes LUNs, changes the configuration and has
 * it loaded again, by 'lunfs reload' and by SIGHUP, has them rescanned, and stops, kills and starts
 * the tgtds, at random. LUN 1 of each target, the anchor, is always there; 2 to 4 come and go.
 * Meanwhile workers write, read and sync blocks that tell their place and generation; a walker
 * looks at all names and links; a poller reads the status in all its forms.
 *
 * What is held to: of a handle on an anchor of a target of long patience nothing ever fails, unless
 * a reload that removes it was under way when it was opened. What was synced is there; what a block
 * holds was written to it, and is not older than what was synced. After the end the same is asked
 * of the backing files. No link dangles for long, every answer comes soon and is valid, no
 * descriptor and no session is left over.
 *
 * LUNFS_TEST_SEED repeats what is done (not how it meets). LUNFS_CHURN_SECONDS makes it last.
 */
#include "support/data.h"
#include "support/seed.h"
#include "support/site.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(churn, .timeout = 4000);

#define TARGETS   4u
#define TGTS      2u
#define LUNS      4u /* the first is the anchor */
#define WORKERS   2u /* of each target: of its anchor, and of those that come and go */
#define PATIENT   2u /* targets of long patience: they wait, the others give up soon */
#define BLOCK     4096u
#define BLOCKS    16u
#define LUN_SIZE  MIB(1)
#define STEPS     170u
#define BOUND     30.0  /* of any command; s */
#define PATIENCE  20.0  /* replacement_timeout of the patient; s */
#define DEPARTING 15000 /* for so long a target that is removed may be opened; ms */
#define FD_SLACK  2

/* ---- workers ---- */

/* What is known of a block, by generations: 0 is what it holds at first. */
struct fact {
	uint64_t synced, written, tried;
	bool sure; /* it holds 'written' */
};

struct worker {
	/* shared by both processes */
	struct fact facts[LUNS][BLOCKS];
	gint operations, syncs, errors, stop;
	char message[400], doing[100];
	/* before the start */
	char directory[200];
	unsigned target, first, last; /* of the LUNs, counted from 0 */
	bool patient;
	const gint64 *removing_ms; /* when a reload began that may remove it; 0: none */
	struct dice dice;
	pid_t pid;
};

struct work {
	struct worker *worker;
	uint64_t *buffer;
	unsigned lun;
	int fd;
	bool direct, excused; /* it may fail */
};

static gint64 now_ms(void)
{
	return g_get_monotonic_time() / 1000;
}

static bool complain(struct work *work, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool complain(struct work *work, const char *format, ...)
{
	struct worker *worker = work->worker;
	g_autofree char *what = NULL;
	va_list args;

	va_start(args, format);
	what = g_strdup_vprintf(format, args);
	va_end(args);
	snprintf(worker->message, sizeof worker->message,
	    "%s/lun%u%s after %d operations, %d errors: %s", worker->directory, work->lun + 1,
	    work->direct ? ", direct" : "", worker->operations, worker->errors, what);
	return false;
}

static uint64_t word_of(const struct worker *worker, unsigned lun, unsigned block)
{
	return 0x10000000u + worker->target * 0x1000000u + lun * 0x10000u + block;
}

static void block_fill(
    uint64_t *words, const struct worker *worker, unsigned lun, unsigned block, uint64_t generation)
{
	for (unsigned i = 0; i < BLOCK / sizeof *words; i += 2) {
		words[i] = word_of(worker, lun, block);
		words[i + 1] = generation;
	}
}

/* NULL: it is one that it may be. */
static char *block_judge(const uint64_t *words, const struct worker *worker, unsigned lun,
    unsigned block, uint64_t *generation)
{
	const struct fact *fact = &worker->facts[lun][block];
	uint64_t place = words[0], found = words[1];

	for (unsigned i = 0; i < BLOCK / sizeof *words; i += 2)
		if (words[i] != place || words[i + 1] != found)
			return g_strdup_printf("block %u is torn at byte %zu: %" PRIx64 ":%" PRIu64
			                       ", then %" PRIx64 ":%" PRIu64,
			    block, i * sizeof *words, place, found, words[i], words[i + 1]);
	if (place != (found == 0 ? 0 : word_of(worker, lun, block)))
		return g_strdup_printf(
		    "block %u is of another place: %" PRIx64 ":%" PRIu64, block, place, found);
	*generation = found;
	if (fact->sure ? found == fact->written : found >= fact->synced && found <= fact->tried)
		return NULL;
	return g_strdup_printf("block %u is of generation %" PRIu64 ", not of %" PRIu64
	                       " to %" PRIu64 " (synced %" PRIu64 ")",
	    block, found, fact->sure ? fact->written : fact->synced, fact->tried, fact->synced);
}

/* From now on what was not synced may be there or not. */
static void forget_what_is_sure(struct work *work)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct fact *fact = &work->worker->facts[work->lun][i];

		fact->sure &= fact->synced == fact->written;
	}
}

/* False: that must not be. */
static bool may_fail(struct work *work, const char *what)
{
	struct worker *worker = work->worker;
	int error = errno;

	g_atomic_int_inc(&worker->errors);
	if (worker->patient && work->lun == 0 && !work->excused)
		return complain(work, "%s: %s", what, strerror(error));
	if (error != EIO && error != ENXIO)
		return complain(work, "%s: %s", what, strerror(error));
	forget_what_is_sure(work);
	close(work->fd);
	work->fd = -1;
	return true;
}

static bool work_write(struct work *work, unsigned block)
{
	struct fact *fact = &work->worker->facts[work->lun][block];

	block_fill(work->buffer, work->worker, work->lun, block, ++fact->tried);
	fact->sure = false;
	if (pwrite(work->fd, work->buffer, BLOCK, (off_t)block * BLOCK) != BLOCK)
		return may_fail(work, "write");
	fact->written = fact->tried;
	fact->sure = true;
	return true;
}

static bool work_read(struct work *work, unsigned block)
{
	uint64_t generation;

	errno = EPIPE; /* a short one */
	if (pread(work->fd, work->buffer, BLOCK, (off_t)block * BLOCK) != BLOCK)
		return may_fail(work, "read");
	g_autofree char *wrong =
	    block_judge(work->buffer, work->worker, work->lun, block, &generation);
	return wrong == NULL || complain(work, "%s", wrong);
}

/* What was acknowledged is on stable storage. */
static bool work_is_synced(struct work *work)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct fact *fact = &work->worker->facts[work->lun][i];

		if (fact->sure)
			fact->synced = fact->written;
	}
	g_atomic_int_inc(&work->worker->syncs);
	return true;
}

static bool work_sync(struct work *work)
{
	return fsync(work->fd) == 0 ? work_is_synced(work) : may_fail(work, "fsync");
}

static void work_open(struct work *work)
{
	struct worker *worker = work->worker;
	g_autofree char *path = NULL;

	work->lun = (unsigned)dice_between(&worker->dice, worker->first, worker->last);
	work->direct = dice_roll(&worker->dice) & 1;
	path = g_strdup_printf("%s/lun%u.img", worker->directory, work->lun + 1);
	work->fd = open(path, O_RDWR | O_CLOEXEC | (work->direct ? O_DIRECT : 0));
	gint64 removing_ms = *(const volatile gint64 *)worker->removing_ms;
	work->excused = removing_ms != 0 && now_ms() - removing_ms < DEPARTING;
}

static bool work_close(struct work *work)
{
	int fd = work->fd;

	work->fd = -1;
	if (close(fd) == 0)
		return work_is_synced(work);
	work->fd = dup(STDERR_FILENO); /* for may_fail() to close */
	return may_fail(work, "close");
}

static bool work_once(struct work *work)
{
	struct dice *dice = &work->worker->dice;
	unsigned die = (unsigned)dice_between(dice, 0, 99);
	unsigned block = (unsigned)dice_between(dice, 0, BLOCKS - 1);

	if (work->fd < 0) {
		g_usleep(dice_between(dice, 1, 100) * 1000);
		work_open(work);
		return true;
	}
	g_usleep(dice_between(dice, 0, 3) * 1000);
	snprintf(work->worker->doing, sizeof work->worker->doing, "die %u, block %u of lun%u%s",
	    die, block, work->lun + 1, work->direct ? ", direct" : "");
	if (die < 45)
		return work_write(work, block);
	if (die < 85)
		return work_read(work, block);
	if (die < 96)
		return work_sync(work);
	return work_close(work);
}

static int worker_main(void *data)
{
	struct worker *worker = data;
	struct work work = {.worker = worker, .buffer = aligned_buffer(BLOCK), .fd = -1};

	while (!g_atomic_int_get(&worker->stop)) {
		if (!work_once(&work))
			return 1;
		g_atomic_int_inc(&worker->operations);
	}
	return work.fd < 0 || work_close(&work) ? 0 : 1;
}

/* ---- the walker: names and links ---- */

struct walker {
	char mnt[200], message[400];
	gint stop, walks;
	pid_t pid;
};

/* Of a directory of links, those that dangle; those that did so already are too many. */
static GHashTable *walk_links(struct walker *walker, const char *name, GHashTable *before)
{
	GHashTable *dangling = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autofree char *directory = g_build_filename(walker->mnt, name, NULL);
	DIR *dir = opendir(directory);

	for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
		g_autofree char *path = g_build_filename(directory, entry->d_name, NULL);
		g_autofree char *to = g_file_read_link(path, NULL);
		struct stat st;

		if (to == NULL || stat(path, &st) == 0 || errno != ENOENT)
			continue;
		char *link = g_strdup_printf("%s -> %s", path, to);
		if (before != NULL && g_hash_table_contains(before, link))
			snprintf(walker->message, sizeof walker->message, "%s dangles", link);
		g_hash_table_add(dangling, link);
	}
	if (dir == NULL)
		snprintf(
		    walker->message, sizeof walker->message, "%s: %s", directory, strerror(errno));
	else
		closedir(dir);
	if (before != NULL)
		g_hash_table_unref(before);
	return dangling;
}

/* All that is in the tree can be looked at, or is gone. */
static void walk_tree(struct walker *walker, const char *path, unsigned depth)
{
	DIR *dir = opendir(path);

	for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
		g_autofree char *child = g_build_filename(path, entry->d_name, NULL);
		struct stat st;

		if (entry->d_name[0] == '.')
			continue;
		if (lstat(child, &st) != 0 && errno != ENOENT)
			snprintf(walker->message, sizeof walker->message, "%s: %s", child,
			    strerror(errno));
		else if (S_ISDIR(st.st_mode) && depth > 0)
			walk_tree(walker, child, depth - 1);
	}
	if (dir != NULL)
		closedir(dir);
}

static int walker_main(void *data)
{
	struct walker *walker = data;
	GHashTable *by_path = NULL, *by_id = NULL;

	while (!g_atomic_int_get(&walker->stop) && walker->message[0] == '\0') {
		by_path = walk_links(walker, "by-path", by_path);
		by_id = walk_links(walker, "by-id", by_id);
		for (unsigned i = 0; i < 5; i++) {
			walk_tree(walker, walker->mnt, 2);
			g_usleep((gulong)(patience(0.2) * 1e6));
		}
		g_atomic_int_inc(&walker->walks);
	}
	return walker->message[0] != '\0';
}

/* ---- the poller: what the mount tells of itself ---- */

static const char poller[] =
    "import json, re, subprocess, sys, time, os\n"
    "lunfs, mnt, bound, stop = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]\n"
    "line = re.compile(r'^(#.*|[a-z_]+(\\{([a-z_]+=\"([^\"\\\\]|\\\\.)*\",?)*\\})? "
    "[-+0-9.eE]+|)$')\n"
    "def run(*words):\n"
    "    return subprocess.run(lunfs.split() + ['status', mnt, *words], "
    "stdout=subprocess.PIPE, check=True, timeout=bound).stdout.decode()\n"
    "def ready(d):\n"
    "    assert isinstance(d['targets'], list)\n"
    "    names = [t['name'] for t in d['targets']]\n"
    "    assert len(set(names)) == len(names), names\n"
    "turn = 0\n"
    "while not os.path.exists(stop):\n"
    "    start = time.monotonic()\n"
    "    turn += 1\n"
    "    if turn % 4 == 0: ready(json.loads(run('--json')))\n"
    "    elif turn % 4 == 2: assert run()\n"
    "    ready(json.loads(open(mnt + '/.lunfs/status.json').read()))\n"
    "    for l in open(mnt + '/.lunfs/metrics').read().split('\\n'):\n"
    "        assert line.match(l), l\n"
    "    took = time.monotonic() - start\n"
    "    assert took < bound, 'the status took %.1f s' % took\n"
    "    time.sleep(0.05)\n"
    "print(turn)\n";

/* ---- the site ---- */

struct section {
	bool there;
	unsigned variant; /* of its options */
};

struct place {
	struct tgt *tgt;
	char *name, *iqn;
	unsigned tid;
	bool present[LUNS];
	char *backing[LUNS];
	struct worker *workers[WORKERS];
	gint64 *removing_ms; /* shared with the workers */
	struct section section;
};

struct house {
	struct tgt *tgt;
	enum { UP, STOPPED, DEAD } state;
	gint64 due_ms; /* when that is over */
};

struct site {
	struct stage *stage;
	struct dice dice;
	struct house houses[TGTS];
	struct place places[TARGETS];
	struct walker *walker;
	char *mnt, *log, *stop_poller;
	pid_t daemon, poller;
	GString *history;
	bool dead_section; /* of a portal where nobody answers */
	bool twin_section; /* of the first target once more: nothing of it is shown twice */
	unsigned steps, reloads, refused, kept;
};

static char *tail(struct site *site)
{
	return text(site->stage, "the last steps:%s\n%s",
	    site->history->str + (site->history->len > 1500 ? site->history->len - 1500 : 0),
	    sh(site->stage, "tail -n 40 %s", site->log)->out);
}

static bool chance(struct site *site, unsigned percent)
{
	return dice_between(&site->dice, 1, 100) <= percent;
}

static void note(struct site *site, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void note(struct site *site, const char *format, ...)
{
	va_list args;

	g_string_append_printf(site->history, "\n%.3f ", seconds_now());
	va_start(args, format);
	g_string_append_vprintf(site->history, format, args);
	va_end(args);
}

static void site_write(struct site *site)
{
	static const char *const variants[] = {
	    "", "cache=none\n", "cache=writethrough\n", "dirty_expire=200ms\n", "readahead=0\n"};
	g_autoptr(GString) conf = g_string_new(
	    "[defaults]\nnoop_out_interval=1s\nnoop_out_timeout=1s\nlogin_timeout=3s\n");

	for (unsigned i = 0; i < TARGETS; i++) {
		const struct place *place = &site->places[i];

		if (place->section.there)
			g_string_append_printf(conf, "%sreplacement_timeout=%us\n%s",
			    site_section(site->stage, place->name, place->tgt->portal, place->iqn),
			    i < PATIENT ? (unsigned)patience(PATIENCE) : 3,
			    variants[place->section.variant]);
	}
	if (site->dead_section)
		g_string_append(conf,
		    "[target dead]\nportal=127.0.0.1:9\niqn=iqn.2026-11.org.lunfs.test:dead\n");
	if (site->twin_section)
		g_string_append(conf, site_section(site->stage, "twin", site->places[0].tgt->portal,
		                          site->places[0].iqn));
	site_configure(site->stage, "%s", conf->str);
}

static void place_fill(struct site *site, struct place *place)
{
	tgt_add_target(place->tgt, place->tid, place->iqn);
	for (unsigned lun = 0; lun < LUNS; lun++)
		if (place->present[lun])
			place->backing[lun] =
			    tgt_add_lun(place->tgt, place->tid, .lun = lun + 1, .size = LUN_SIZE);
		else
			place->backing[lun] = text(
			    site->stage, "%s/target%u-lun%u", place->tgt->dir, place->tid, lun + 1);
}

static void site_fill(struct site *site)
{
	for (unsigned i = 0; i < TGTS; i++)
		site->houses[i].tgt = tgt_start_in(
		    site->stage, stage_directory(site->stage, text(site->stage, "tgt%u", i), 0));
	for (unsigned i = 0; i < TARGETS; i++) {
		struct place *place = &site->places[i];

		*place = (struct place){
		    .tgt = site->houses[i % TGTS].tgt,
		    .name = text(site->stage, "t%u", i),
		    .iqn = text(site->stage, "iqn.2026-11.org.lunfs.test:churn%u", i),
		    .tid = 1 + i / TGTS,
		    .present = {true, i & 1},
		    .section = {.there = true},
		};
		place_fill(site, place);
	}
}

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert(memory != MAP_FAILED);
	return memory;
}

static struct worker *worker_start(struct site *site, unsigned target, bool of_anchor)
{
	struct worker *worker = shared_memory(sizeof *worker);

	snprintf(worker->directory, sizeof worker->directory, "%s/t%u", site->mnt, target);
	worker->target = target;
	worker->first = of_anchor ? 0 : 1;
	worker->last = of_anchor ? 0 : LUNS - 1;
	worker->patient = target < PATIENT;
	worker->removing_ms = site->places[target].removing_ms;
	worker->dice.state = dice_roll(&site->dice);
	for (unsigned lun = 0; lun < LUNS; lun++)
		for (unsigned i = 0; i < BLOCKS; i++)
			worker->facts[lun][i].sure = true;
	worker->pid = call_start(0, worker_main, worker);
	return worker;
}

static bool site_is_mounted(void *data)
{
	const struct site *site = data;

	return is_mounted(site->mnt) && exists("%s/t0/lun1.img", site->mnt);
}

static void site_mount(struct site *site)
{
	site->mnt = stage_directory(site->stage, "mnt", 0);
	site->log = text(site->stage, "%s/said", site->stage->dir);
	if (site->history == NULL)
		site->history = g_string_new(NULL);
	site_write(site);
	site->daemon = sh_start(
	    site->stage, 0, NULL, site->log, "%s mount all %s -f", site->stage->lunfs, site->mnt);
	cr_assert(await(20, site_is_mounted, site), "not mounted: %s", tail(site));
}

static void site_begin(struct site *site)
{
	g_autofree char *script = g_build_filename(site->stage->dir, "poller.py", NULL);

	for (unsigned i = 0; i < TARGETS; i++) {
		site->places[i].removing_ms = shared_memory(sizeof(gint64));
		for (unsigned k = 0; k < WORKERS; k++)
			site->places[i].workers[k] = worker_start(site, i, k == 0);
	}
	site->walker = shared_memory(sizeof *site->walker);
	g_strlcpy(site->walker->mnt, site->mnt, sizeof site->walker->mnt);
	site->walker->pid = call_start(0, walker_main, site->walker);
	cr_assert(g_file_set_contents(script, poller, -1, NULL));
	site->stop_poller = text(site->stage, "%s/stop", site->stage->dir);
	site->poller = sh_start(site->stage, 0, text(site->stage, "%s/polls", site->stage->dir),
	    text(site->stage, "%s/poller", site->stage->dir), "python3 %s '%s' %s %f %s", script,
	    site->stage->lunfs, site->mnt, patience(BOUND), site->stop_poller);
}

/* ---- what the director does ---- */

static struct house *house_of(struct site *site, const struct place *place)
{
	for (unsigned i = 0; i < TGTS; i++)
		if (site->houses[i].tgt == place->tgt)
			return &site->houses[i];
	return NULL;
}

static void change_lun(struct site *site)
{
	struct place *place = &site->places[dice_between(&site->dice, 0, TARGETS - 1)];
	unsigned lun = (unsigned)dice_between(&site->dice, 1, LUNS - 1);

	if (house_of(site, place)->state != UP)
		return;
	note(site, "%s %s/lun%u", place->present[lun] ? "delete" : "add", place->name, lun + 1);
	if (!place->present[lun]) {
		tgt_add_lun(place->tgt, place->tid, .lun = lun + 1, .size = LUN_SIZE);
		place->present[lun] = true;
		return;
	}
	/* tgt may say that it is busy */
	if (sh(site->stage, "%s --mode logicalunit --op delete --tid %u --lun %u",
	        place->tgt->admin, place->tid, lun + 1)
	        ->status == 0)
		place->present[lun] = false;
}

static void run_bounded(struct site *site, const char *what, struct result *result, int worst)
{
	site->refused += result->status != 0;
	note(site, "  %s: %d after %.2f s: %s%s", what, result->status, result->seconds,
	    g_strchomp(result->out), g_strchomp(result->err));
	cr_assert(
	    !result->timed_out && result->seconds < patience(BOUND) && result->status <= worst,
	    "'lunfs %s' ended with %d after %.1f s\n%s", what, result->status, result->seconds,
	    tail(site));
}

static void rescan(struct site *site)
{
	note(site, "rescan");
	run_bounded(site, "rescan", lunfs(site->stage, "rescan %s", site->mnt), 0);
}

static void change_sections(struct site *site)
{
	for (unsigned i = 0; i < TARGETS; i++) {
		struct section *section = &site->places[i].section;

		if (chance(site, 30)) {
			section->there = !section->there || chance(site, 30);
			section->variant = (unsigned)dice_between(&site->dice, 0, 4);
		}
		*site->places[i].removing_ms = now_ms();
	}
	site->dead_section = chance(site, 20);
	site->twin_section = chance(site, 15);
	site_write(site);
}

/* What stayed cannot have been opened while it went. */
static void excuse_only(struct site *site, const char *removed)
{
	g_auto(GStrv) names = g_strsplit_set(removed, ", \n", -1);

	for (unsigned i = 0; i < TARGETS; i++)
		if (!g_strv_contains((const char *const *)names, site->places[i].name))
			*site->places[i].removing_ms = 0;
}

static void reload(struct site *site)
{
	note(site, "reload");
	change_sections(site);
	struct result *result = lunfs(site->stage, "reload %s", site->mnt);

	run_bounded(site, "reload", result, 1);
	site->reloads++;
	if (strstr(result->err, "in use") != NULL || result->status == 0) {
		site->kept += result->status != 0;
		excuse_only(site, result->out);
	}
}

static void hang_up(struct site *site)
{
	note(site, "SIGHUP");
	change_sections(site);
	cr_assert_eq(kill(site->daemon, SIGHUP), 0);
	if (chance(site, 30))
		cr_assert_eq(kill(site->daemon, SIGHUP), 0);
	site->reloads++;
}

static void trouble_a_house(struct site *site)
{
	struct house *house = &site->houses[dice_between(&site->dice, 0, TGTS - 1)];

	if (house->state != UP)
		return;
	if (chance(site, 60)) {
		tgt_freeze(house->tgt);
		house->state = STOPPED;
		house->due_ms = now_ms() + (gint64)dice_between(&site->dice, 50, 5000);
	} else {
		tgt_kill(house->tgt);
		house->state = DEAD;
		house->due_ms = now_ms() + (gint64)dice_between(&site->dice, 0, 3000);
	}
	note(site, "%s tgt%u", house->state == STOPPED ? "stop" : "kill",
	    (unsigned)(house - site->houses));
}

static void mend_house(struct site *site, struct house *house)
{
	note(site, "mend tgt%u", (unsigned)(house - site->houses));
	if (house->state == STOPPED) {
		tgt_thaw(house->tgt);
	} else if (house->state == DEAD) {
		tgt_restart(house->tgt);
		for (unsigned i = 0; i < TARGETS; i++)
			if (site->places[i].tgt == house->tgt)
				place_fill(site, &site->places[i]);
	}
	house->state = UP;
}

/* Fails as soon as somebody does. */
static void watch(struct site *site)
{
	int status;

	for (unsigned i = 0; i < TARGETS * WORKERS; i++) {
		const struct worker *worker = site->places[i / WORKERS].workers[i % WORKERS];

		cr_assert(worker->message[0] == '\0', "%s\n%s", worker->message, tail(site));
	}
	cr_assert(site->walker->message[0] == '\0', "%s\n%s", site->walker->message, tail(site));
	cr_assert(waitpid(site->daemon, &status, WNOHANG) == 0, "lunfs died: %#x\n%s", status,
	    tail(site));
	cr_assert(waitpid(site->poller, &status, WNOHANG) == 0, "the status: %s\n%s",
	    must(site->stage, "cat poller"), tail(site));
}

static void step(struct site *site)
{
	unsigned die = (unsigned)dice_between(&site->dice, 0, 99);

	site->steps++;
	for (unsigned i = 0; i < TGTS; i++)
		if (site->houses[i].state != UP && now_ms() >= site->houses[i].due_ms)
			mend_house(site, &site->houses[i]);
	if (die < 35)
		change_lun(site);
	else if (die < 50)
		rescan(site);
	else if (die < 75)
		reload(site);
	else if (die < 85)
		hang_up(site);
	else if (die < 92)
		trouble_a_house(site);
	else
		g_usleep(dice_between(&site->dice, 0, 1000) * 1000);
	g_usleep(dice_between(&site->dice, 0, 60) * 1000);
	watch(site);
}

/* ---- the end ---- */

static bool loads_again(void *data)
{
	struct site *site = data;

	return lunfs(site->stage, "reload %s", site->mnt)->status == 0;
}

static bool all_is_there(void *data)
{
	const struct site *site = data;

	for (unsigned i = 0; i < TARGETS; i++)
		for (unsigned lun = 0; lun < LUNS; lun++)
			if (exists("%s/t%u/lun%u.img", site->mnt, i, lun + 1) !=
			    site->places[i].present[lun])
				return false;
	return true;
}

static void call_home(struct site *site)
{
	for (unsigned i = 0; i < TARGETS * WORKERS; i++)
		g_atomic_int_set(&site->places[i / WORKERS].workers[i % WORKERS]->stop, 1);
	g_atomic_int_set(&site->walker->stop, 1);
	must(site->stage, "touch %s", site->stop_poller);
	for (unsigned i = 0; i < TARGETS * WORKERS; i++) {
		const struct worker *worker = site->places[i / WORKERS].workers[i % WORKERS];
		int status = call_end(worker->pid, PATIENCE + BOUND);

		cr_assert(status == 0, "%s: a worker ended with %d: %s (%s)\n%s\n%s",
		    worker->directory, status, worker->message, worker->doing,
		    lunfs(site->stage, "status %s", site->mnt)->out, tail(site));
	}
	cr_assert_eq(call_end(site->walker->pid, BOUND), 0, "%s", site->walker->message);
	cr_assert_eq(call_end(site->poller, BOUND), 0, "%s", must(site->stage, "cat poller"));
}

/* Everything is mended and configured; then all that is there is shown, and nothing else. */
static void settle(struct site *site)
{
	for (unsigned i = 0; i < TGTS; i++)
		if (site->houses[i].state != UP)
			mend_house(site, &site->houses[i]);
	call_home(site);
	for (unsigned i = 0; i < TARGETS; i++)
		site->places[i].section = (struct section){.there = true};
	site->dead_section = site->twin_section = false;
	site_write(site);
	note(site, "settle");
	cr_assert(await(60, loads_again, site), "no reload any more: %s\n%s",
	    lunfs(site->stage, "reload %s", site->mnt)->err, tail(site));
	for (double end = seconds_now() + patience(60); seconds_now() < end;) {
		lunfs(site->stage, "rescan %s", site->mnt);
		if (await(1, all_is_there, site))
			return;
	}
	cr_assert_fail("not all LUNs are shown, or too many: %s\n%s\n%s",
	    must(site->stage, "cd %s && ls *", site->mnt),
	    must_lunfs(site->stage, "status %s", site->mnt), tail(site));
}

static unsigned descriptors(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/fd", pid);
	GDir *dir = g_dir_open(path, 0, NULL);
	unsigned count = 0;

	cr_assert(dir != NULL);
	while (g_dir_read_name(dir) != NULL)
		count++;
	g_dir_close(dir);
	return count;
}

/* What lunfs left at the targets. */
static void must_be_kept(struct site *site, const struct worker *worker)
{
	uint64_t *words = aligned_buffer(BLOCK), generation;

	for (unsigned lun = worker->first; lun <= worker->last; lun++) {
		const char *backing = site->places[worker->target].backing[lun];
		int fd = open(backing, O_RDONLY | O_CLOEXEC);

		for (unsigned i = 0; fd >= 0 && i < BLOCKS; i++) {
			must_pread(fd, words, BLOCK, (uint64_t)i * BLOCK);
			g_autofree char *wrong = block_judge(words, worker, lun, i, &generation);
			cr_assert(wrong == NULL, "at the target, t%u/lun%u: %s\n%s", worker->target,
			    lun + 1, wrong, tail(site));
		}
		if (fd >= 0)
			close(fd);
	}
}

static bool no_session_is_left(void *data)
{
	struct site *site = data;

	for (unsigned i = 0; i < TARGETS; i++)
		if (sh(site->stage, "%s --mode conn --op show --tid %u | grep -q .",
		        site->places[i].tgt->admin, site->places[i].tid)
		        ->status == 0)
			return false;
	return true;
}

static void site_end(struct site *site)
{
	/* 1: LUNs were taken away with what was written to them, and it says so */
	struct result *result = lunfs(site->stage, "umount %s", site->mnt);
	bool lost = result->status == 1 && strstr(result->err, "taken away before") != NULL;

	cr_assert(result->status == 0 || lost, "%s", result->err);
	cr_assert(!is_mounted(site->mnt));
	cr_assert_eq(call_end(site->daemon, BOUND), lost ? 1 : 0, "%s", tail(site));
	for (unsigned i = 0; i < TARGETS * WORKERS; i++)
		must_be_kept(site, site->places[i / WORKERS].workers[i % WORKERS]);
	cr_assert(await(5, no_session_is_left, site), "sessions are left: %s",
	    must(site->stage, "%s --mode target --op show", site->houses[0].tgt->admin));
}

static void sum_up(struct site *site, uint32_t seed, double seconds)
{
	unsigned operations = 0, syncs = 0, errors = 0;

	for (unsigned i = 0; i < TARGETS * WORKERS; i++) {
		const struct worker *worker = site->places[i / WORKERS].workers[i % WORKERS];

		operations += (unsigned)worker->operations;
		syncs += (unsigned)worker->syncs;
		errors += (unsigned)worker->errors;
	}
	fprintf(stderr,
	    "churn: seed %u, %u steps in %.0f s: %u reloads, %u with a target in use, %u commands "
	    "refused; %u operations, %u syncs, %u errors; %d walks\n",
	    seed, site->steps, seconds, site->reloads, site->kept, site->refused, operations, syncs,
	    errors, site->walker->walks);
}

Test(churn, loses_nothing_and_leaves_nothing_behind)
{
	uint32_t seed = test_seed("churn");
	struct site *site = g_new0(struct site, 1);
	const char *given = g_getenv("LUNFS_CHURN_SECONDS");
	double seconds = given ? g_ascii_strtod(given, NULL) : 0, start;
	unsigned long steps = scaled(STEPS);

	site->stage = stage_new();
	site->dice.state = seed;
	site_fill(site);
	site_mount(site);
	cr_assert(await(20, all_is_there, site), "%s", tail(site));
	unsigned before = descriptors(site->daemon);
	site_begin(site);
	start = seconds_now();
	while (seconds > 0 ? seconds_now() - start < seconds : site->steps < steps)
		step(site);
	settle(site);
	sum_up(site, seed, seconds_now() - start);
	unsigned luns = 0;
	for (unsigned i = 0; i < TARGETS; i++)
		for (unsigned lun = 1; lun < LUNS; lun++)
			luns += site->places[i].present[lun];
	/* one for each LUN that is written to; two of those were there at first */
	cr_assert_leq(descriptors(site->daemon) + 2, before + luns + FD_SLACK, "%u, then %u\n%s",
	    before, descriptors(site->daemon),
	    must(site->stage, "ls -l /proc/%d/fd", site->daemon));
	site_end(site);
}

/* ---- again and again ---- */

static uint64_t memory_of(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/status", pid);
	g_autofree char *status = NULL;

	cr_assert(g_file_get_contents(path, &status, NULL, NULL));
	return KIB(g_ascii_strtoull(strstr(status, "RssAnon:") + strlen("RssAnon:"), NULL, 10));
}

/* One more, or one less; and it is done. */
static void reload_to(struct site *site, bool all, unsigned variant)
{
	for (unsigned i = 1; i < TARGETS; i++)
		site->places[i].section = (struct section){all || i == 1, variant};
	site_write(site);
	cr_assert(await(20, loads_again, site), "%s", tail(site));
}

static void reload_often(struct site *site, unsigned long times)
{
	for (unsigned long i = 0; i < times; i++)
		reload_to(site, i & 1, (unsigned)(i % 5));
	reload_to(site, true, 0);
	cr_assert(await(20, loads_again, site));
	cr_assert(await(20, all_is_there, site), "%s", tail(site));
}

Test(churn, hundreds_of_reloads_take_no_memory_and_no_descriptors)
{
	struct site *site = g_new0(struct site, 1);

	site->stage = stage_new();
	site_fill(site);
	site_mount(site);
	reload_often(site, scaled(40));
	unsigned before = descriptors(site->daemon);
	uint64_t memory = memory_of(site->daemon);
	reload_often(site, scaled(200));
	cr_assert_eq(descriptors(site->daemon), before);
	uint64_t grown = memory_of(site->daemon) - MIN(memory, memory_of(site->daemon));
	fprintf(stderr, "churn: %" PRIu64 " KiB, and %" PRIu64 " more after the reloads\n",
	    memory >> 10, grown >> 10);
	if (g_getenv("LUNFS_TEST_SCALE") == NULL) /* the tools have memory of their own */
		cr_assert_lt(grown, KIB(768));
	/* 1: LUNs were taken away with what was written to them, and it says so */
	struct result *result = lunfs(site->stage, "umount %s", site->mnt);
	bool lost = result->status == 1 && strstr(result->err, "taken away before") != NULL;

	cr_assert(result->status == 0 || lost, "%s", result->err);
	cr_assert(!is_mounted(site->mnt));
	cr_assert_eq(call_end(site->daemon, BOUND), lost ? 1 : 0, "%s", tail(site));
}

/* ---- the end, at any moment ---- */

/* A reload is under way, a target does not answer, a LUN is gone: it ends soon, and well. */
static void end_in_the_midst(struct site *site)
{
	struct house *house = &site->houses[dice_between(&site->dice, 0, TGTS - 1)];
	bool stopped = chance(site, 50), by_signal = chance(site, 50);

	note(site, "end, %s%s", stopped ? "stopped, " : "", by_signal ? "SIGTERM" : "umount");
	if (stopped)
		tgt_freeze(house->tgt);
	change_sections(site);
	cr_assert_eq(kill(site->daemon, SIGHUP), 0);
	g_usleep(dice_between(&site->dice, 0, 60) * 1000);
	if (by_signal)
		cr_assert_eq(kill(site->daemon, SIGTERM), 0);
	else
		must_umount(site->stage, site->mnt);
	int status = call_end(site->daemon, BOUND);
	cr_assert(status == 0, "it ended with %d\n%s", status, tail(site));
	cr_assert(!is_mounted(site->mnt));
	if (stopped)
		tgt_thaw(house->tgt);
	cr_assert(await(10, no_session_is_left, site), "sessions are left\n%s", tail(site));
}

Test(churn, it_ends_soon_in_the_midst_of_a_reload)
{
	uint32_t seed = test_seed("churn");
	struct site *site = g_new0(struct site, 1);

	site->stage = stage_new();
	site->dice.state = seed;
	site_fill(site);
	for (unsigned i = 0; i < TARGETS; i++)
		site->places[i].removing_ms = shared_memory(sizeof(gint64));
	for (unsigned long i = scaled(12); i > 0; i--) {
		for (unsigned k = 0; k < TARGETS; k++)
			site->places[k].section = (struct section){.there = true};
		site_mount(site);
		end_in_the_midst(site);
	}
}
