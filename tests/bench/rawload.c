/*
 * rawload: what libiscsi alone reaches, as the yardstick for lunfs.
 *
 *   rawload [--read|--write] [--random|--sequential] [--bs BYTES] [--depth N]
 *           [--seconds S] [--split BYTES] iscsi://HOST[:PORT]/IQN/LUN
 *
 * One session, one thread, one poll loop, no FUSE and no code of lunfs. It keeps `depth` requests
 * of `bs` bytes in flight; each has a buffer of its own that Data-In is read into and Data-Out is
 * sent from. --split cuts a request into commands of at most that many bytes, as lunfs does. Writes
 * destroy what is on the LUN. Prints one line:
 *
 *   ios=N bytes=N seconds=S cpu=S
 *
 * counting what completed before the time was over; cpu is user and system time of this process
 * over the same span. Exit status: 0, 1 when anything failed, 2 for a wrong command line.
 *
 * Owns: struct load, which lives in main(). A request is in flight from request_submit() until the
 * last of its parts is back; request_done() alone submits it again.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define INITIATOR  "iqn.2024-01.org.lunfs:rawload"
#define PATIENCE_S 10 /* without any completion: the target is stuck */

struct request {
	struct load *load;
	uint8_t *buffer;
	struct scsi_iovec
	    *iov; /* one a part: libiscsi keeps the pointer until the command is done */
	uint32_t in_flight;
};

struct load {
	/* the command line */
	bool write, random;
	uint32_t bs, depth, split;
	double seconds;
	const char *url;

	struct iscsi_context *iscsi;
	int lun;
	uint32_t block_size;
	uint64_t slots; /* places of `bs` bytes on the LUN */

	struct request *requests;
	uint32_t in_flight; /* requests */
	uint64_t next;      /* the next place, or the random state */
	uint64_t ios;
	double now, deadline;
	bool failed;
};

static double clock_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void load_fail(struct load *load, const char *what)
{
	if (!load->failed)
		fprintf(stderr, "rawload: %s: %s\n", what, iscsi_get_error(load->iscsi));
	load->failed = true;
}

/* The place of the next request: the LUN from its start, again and again, or xorshift64*. */
static uint64_t load_next_slot(struct load *load)
{
	uint64_t x = load->next;

	if (!load->random) {
		load->next = (x + 1) % load->slots;
		return x;
	}
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	load->next = x;
	return (x * 0x2545F4914F6CDD1DULL >> 11) % load->slots;
}

static void request_submit(struct request *r);

static void request_done(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
	struct request *r = private_data;
	struct load *load = r->load;
	struct scsi_task *task = data;

	(void)iscsi;
	if (status != SCSI_STATUS_GOOD ||
	    (task && task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL))
		load_fail(load, "a command failed");
	if (task)
		scsi_free_scsi_task(task);
	if (--r->in_flight > 0)
		return;
	load->in_flight--;
	if (load->failed || load->now >= load->deadline)
		return;
	load->ios++;
	request_submit(r);
}

static void request_submit(struct request *r)
{
	struct load *load = r->load;
	uint64_t lba = load_next_slot(load) * (load->bs / load->block_size);

	load->in_flight++;
	for (uint32_t at = 0, part = 0; at < load->bs; at += load->split, part++) {
		uint32_t length = load->bs - at < load->split ? load->bs - at : load->split;
		struct scsi_iovec *iov = &r->iov[part];
		int block_size = (int)load->block_size;
		struct scsi_task *task;

		*iov = (struct scsi_iovec){.iov_base = r->buffer + at, .iov_len = length};
		if (load->write)
			task = iscsi_write16_iov_task(load->iscsi, load->lun, lba, NULL, length,
			    block_size, 0, 0, 0, 0, 0, request_done, r, iov, 1);
		else
			task = iscsi_read16_iov_task(load->iscsi, load->lun, lba, length,
			    block_size, 0, 0, 0, 0, 0, request_done, r, iov, 1);
		if (!task) {
			load_fail(load, "cannot queue a command");
			return;
		}
		r->in_flight++;
		lba += length / load->block_size;
	}
}

/* Turns the loop until `load->deadline`, or, with `drain`, until nothing is in flight. */
static void load_turn(struct load *load, bool drain)
{
	double progress_at = load->now;
	uint64_t seen = load->ios;

	while (!load->failed && (drain ? load->in_flight > 0 : load->now < load->deadline)) {
		struct pollfd p = {.fd = iscsi_get_fd(load->iscsi),
		    .events = (short)iscsi_which_events(load->iscsi)};

		if (poll(&p, 1, 1000) < 0 && errno != EINTR) {
			perror("rawload: poll");
			load->failed = true;
			return;
		}
		load->now = clock_seconds();
		/* POLLOUT always: what the callbacks queue is sent in the same turn */
		if (iscsi_service(load->iscsi, p.revents | POLLOUT) < 0)
			load_fail(load, "the session was lost");
		if (load->ios != seen) {
			seen = load->ios;
			progress_at = load->now;
		} else if (load->now - progress_at > PATIENCE_S) {
			load_fail(load, "the target does not answer");
		}
	}
}

static int load_run(struct load *load)
{
	double start, cpu;
	uint64_t ios;

	cpu = cpu_seconds();
	start = load->now = clock_seconds();
	load->deadline = start + load->seconds;
	for (uint32_t i = 0; i < load->depth && !load->failed; i++)
		request_submit(&load->requests[i]);
	load_turn(load, false);
	cpu = cpu_seconds() - cpu;
	start = load->now - start;
	ios = load->ios;
	load_turn(load, true);
	if (load->failed)
		return 1;
	printf("ios=%llu bytes=%llu seconds=%.3f cpu=%.3f\n", (unsigned long long)ios,
	    (unsigned long long)ios * load->bs, start, cpu);
	return 0;
}

static int load_login(struct load *load)
{
	struct scsi_readcapacity16 *capacity;
	struct iscsi_url *url;
	struct scsi_task *task;
	int result;

	load->iscsi = iscsi_create_context(INITIATOR);
	if (!load->iscsi)
		return -1;
	url = iscsi_parse_full_url(load->iscsi, load->url);
	if (!url) {
		load_fail(load, load->url);
		return -1;
	}
	load->lun = url->lun;
	iscsi_set_noautoreconnect(load->iscsi, 1);
	iscsi_set_session_type(load->iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(load->iscsi, ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_targetname(load->iscsi, url->target);
	result = iscsi_full_connect_sync(load->iscsi, url->portal, url->lun);
	iscsi_destroy_url(url);
	if (result != 0) {
		load_fail(load, "cannot log in");
		return -1;
	}
	task = iscsi_readcapacity16_sync(load->iscsi, load->lun);
	capacity = task && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
	if (capacity) {
		load->block_size = capacity->block_length;
		load->slots = (capacity->returned_lba + 1) * load->block_size / load->bs;
	}
	scsi_free_scsi_task(task);
	if (!capacity || load->slots == 0 || load->bs % load->block_size != 0 ||
	    load->split % load->block_size != 0) {
		fprintf(stderr,
		    "rawload: the LUN is too small, or --bs or --split not in its blocks\n");
		return -1;
	}
	return 0;
}

static int load_allocate(struct load *load)
{
	size_t parts = (load->bs + load->split - 1) / load->split;

	load->requests = calloc(load->depth, sizeof *load->requests);
	if (!load->requests)
		return -1;
	for (uint32_t i = 0; i < load->depth; i++) {
		struct request *r = &load->requests[i];

		r->load = load;
		r->buffer = aligned_alloc(4096, ((size_t)load->bs + 4095) / 4096 * 4096);
		r->iov = calloc(parts, sizeof *r->iov);
		if (!r->buffer || !r->iov)
			return -1;
		memset(r->buffer, 0xA5, load->bs); /* the pages are there before the clock starts */
	}
	return 0;
}

static void load_free(struct load *load)
{
	if (load->iscsi) {
		if (iscsi_is_logged_in(load->iscsi) && !load->failed)
			iscsi_logout_sync(load->iscsi);
		iscsi_destroy_context(load->iscsi); /* calls back what is still in flight */
	}
	for (uint32_t i = 0; load->requests && i < load->depth; i++) {
		free(load->requests[i].buffer);
		free(load->requests[i].iov);
	}
	free(load->requests);
}

static bool load_parse(struct load *load, int argc, char **argv)
{
	static const struct option options[] = {{"read", no_argument, NULL, 'r'},
	    {"write", no_argument, NULL, 'w'}, {"random", no_argument, NULL, 'R'},
	    {"sequential", no_argument, NULL, 'S'}, {"bs", required_argument, NULL, 'b'},
	    {"depth", required_argument, NULL, 'd'}, {"seconds", required_argument, NULL, 's'},
	    {"split", required_argument, NULL, 'p'}, {NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'r':
		case 'w':
			load->write = option == 'w';
			break;
		case 'R':
		case 'S':
			load->random = option == 'R';
			break;
		case 'b':
			load->bs = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'd':
			load->depth = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 's':
			load->seconds = strtod(optarg, NULL);
			break;
		case 'p':
			load->split = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		default:
			return false;
		}
	}
	if (load->split == 0 || load->split > load->bs)
		load->split = load->bs;
	load->next = load->random ? 0x9E3779B97F4A7C15ULL : 0;
	load->url = argv[optind];
	return optind == argc - 1 && load->bs > 0 && load->bs <= 64U << 20 && load->depth > 0 &&
	       load->depth <= 1024 && load->seconds > 0;
}

int main(int argc, char **argv)
{
	struct load load = {.random = true, .bs = 4096, .depth = 1, .seconds = 3};
	int status = 1;

	if (!load_parse(&load, argc, argv)) {
		fprintf(stderr,
		    "usage: rawload [--read|--write] [--random|--sequential] [--bs BYTES] [--depth "
		    "N]\n"
		    "               [--seconds S] [--split BYTES] iscsi://HOST[:PORT]/IQN/LUN\n");
		return 2;
	}
	if (load_login(&load) == 0 && load_allocate(&load) == 0)
		status = load_run(&load);
	load_free(&load);
	return status;
}
