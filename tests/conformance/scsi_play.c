/*
 * scsi_play.c - see scsi_play.h.
 */
#include "scsi_play.h"

#define PLAY_SIZE MIB(4)

struct play play_unmounted(void)
{
	return (struct play){.scene = scene_of_script(PLAY_SIZE), .fd = -1};
}

void play_mount(struct play *play, const char *options)
{
	script_scene_mount(&play->scene,
	    text(play->scene.stage, "cache=none%s%s", options ? "," : "", options ? options : ""));
	play->fd = must_open(play->scene.file, O_RDWR | O_DIRECT);
	play->bytes = aligned_buffer(PLAY_LENGTH);
}

struct play play_new(const char *options)
{
	struct play play = play_unmounted();

	play_mount(&play, options);
	return play;
}

void play_end(struct play *play)
{
	script_target_forget_rules(play->scene.script);
	close(play->fd);
	script_scene_umount(&play->scene);
	script_target_stop(play->scene.script);
}

static int play_opcode(enum play_op op)
{
	return op == PLAY_READ ? SCRIPT_READ : op == PLAY_WRITE ? SCRIPT_WRITE : SCRIPT_SYNC;
}

void play_rule(struct play *play, enum play_op op, struct script_rule rule)
{
	script_target_forget_rules(play->scene.script);
	rule.opcode = play_opcode(op);
	script_target_rule(play->scene.script, rule);
}

void play_sense(struct play *play, enum play_op op, unsigned times, struct sense sense)
{
	play_rule(play, op, (struct script_rule){.times = times, .sense = sense});
}

static int play_read(struct play *play)
{
	unsigned char *expected = aligned_buffer(PLAY_LENGTH);

	if (play->wrote)
		pattern_fill(expected, PLAY_LENGTH, play->offset, 1);
	if (pread(play->fd, play->bytes, PLAY_LENGTH, (off_t)play->offset) < 0)
		return errno;
	cr_assert_lt(first_difference(play->bytes, expected, PLAY_LENGTH), 0, "wrong bytes");
	return 0;
}

static int play_write(struct play *play)
{
	uint64_t offset = play->next % PLAY_SIZE;

	pattern_fill(play->bytes, PLAY_LENGTH, offset, 1);
	play->next += PLAY_LENGTH;
	if (pwrite(play->fd, play->bytes, PLAY_LENGTH, (off_t)offset) < 0)
		return errno;
	play->offset = offset;
	play->wrote = true;
	return 0;
}

int play_do(struct play *play, enum play_op op)
{
	if (op == PLAY_SYNC && play_write(play) != 0) /* else there is nothing to flush */
		cr_assert_fail("no WRITE: %s", strerror(errno));
	play->first = script_target_records(play->scene.script);
	if (op == PLAY_SYNC)
		return fsync(play->fd) == 0 ? 0 : errno;
	return op == PLAY_READ ? play_read(play) : play_write(play);
}

unsigned play_count(struct play *play, enum play_op op)
{
	return script_scene_count(&play->scene, play_opcode(op), play->first);
}

int64_t play_gap_ms(struct play *play, enum play_op op, unsigned nth)
{
	struct script_record record;
	int64_t before_ms = 0;
	unsigned found = 0;

	for (unsigned i = play->first; script_target_record(play->scene.script, i, &record); i++) {
		if (!record_is(&record, play_opcode(op)))
			continue;
		if (found++ == nth)
			return record.at_ms - before_ms;
		before_ms = record.at_ms;
	}
	cr_assert_fail("it did not come %u times", nth + 1);
	return 0;
}

bool play_wrote(struct play *play, unsigned first, uint64_t offset)
{
	struct script_record record;

	for (; script_target_record(play->scene.script, first, &record); first++)
		if (record_is(&record, SCRIPT_WRITE) && record_start(&record) <= offset &&
		    record_end(&record) > offset)
			return true;
	return false;
}

void play_must_be_stable(struct play *play, uint64_t offset)
{
	g_autofree unsigned char *expected = g_malloc(PLAY_LENGTH);

	pattern_fill(expected, PLAY_LENGTH, offset, 1);
	script_scene_must_be(&play->scene, SCRIPT_STABLE, expected, PLAY_LENGTH, offset);
}

static bool works(void *data)
{
	struct play *play = data;

	return play_do(play, PLAY_WRITE) == 0 && play_do(play, PLAY_SYNC) == 0;
}

void play_await_works(struct play *play)
{
	cr_assert(await(20, works, play), "%s", scene_said(&play->scene));
	play_must_be_stable(play, play->offset);
}
