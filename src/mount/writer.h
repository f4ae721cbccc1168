/*
 * writer.h - one writer for a LUN on this host (DESIGN, semantics 7). Private to the room.
 *
 * A LUN is known by its designator and serial; where these prove little, by the target's and the
 * LUN's names besides. Who writes holds the name of an abstract socket made from that, which nobody
 * else in this network namespace can bind, other users included, and which the kernel takes back
 * when the process ends; who connects to it is told the mountpoint.
 */
#pragma once

#include <stdbool.h>

#include "lunfs/scsi.h"

struct loop;
struct writer;
struct writers;

/* What a mount on mountpoint holds. sysfs is where to look for the kernel's devices: NULL for /sys.
 */
struct writers *writers_new(struct loop *loop, const char *mountpoint, const char *sysfs);
/* After the last writer_free(). */
void writers_free(struct writers *writers);

/*
 * Claims the LUN of the target (its IQN) for writing, for file ("nas/lun0.img") of the mount. To be
 * called in the process that stays: it is the one that others are told of.
 *
 * Where another has it, the kernel's initiator among them: NULL, and *who is "the lunfs mount on
 * /mnt/a (pid 12, user joe), as lun0.img" or "the kernel's initiator, as /dev/sdb"; free with
 * g_free(). It is printable, whatever others say of themselves. The same mount may claim the same
 * LUN again and again. Where shared is set it is never refused, but others without are, as long as
 * one of the shared is held.
 *
 * Asks others for up to 200 ms, if they do not answer at once; at most 1 s in all of 10 s.
 */
struct writer *writer_claim(struct writers *writers, const struct lun_info *info,
    const char *target, const char *file, bool shared, char **who);
/* Gives one claim back. */
void writer_free(struct writer *writer);

/*
 * "/dev/sdb": where the kernel's own initiator has the LUN, and may write to it; NULL: it has not.
 * It is the same where its target and number are, or a designator that is not weak. sysfs is
 * "/sys". Free with g_free().
 */
char *writer_kernel_device(const char *sysfs, const struct lun_info *info, const char *target);
