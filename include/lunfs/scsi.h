/*
 * scsi.h - SCSI commands, what they answer, and the disk above them.
 *
 * struct scsi_port is the face of whatever carries commands: an iSCSI session, or a script in a
 * test. References are to SAM-5, SPC-4 and SBC-3.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lunfs/block.h"
#include "lunfs/histogram.h"

struct loop;

/* ---- one command ---- */

enum scsi_direction { SCSI_NO_DATA, SCSI_DATA_IN, SCSI_DATA_OUT };

/* SAM-5 table 38 */
enum sam_status {
	SAM_GOOD = 0x00,
	SAM_CHECK_CONDITION = 0x02,
	SAM_CONDITION_MET = 0x04,
	SAM_BUSY = 0x08,
	SAM_RESERVATION_CONFLICT = 0x18,
	SAM_TASK_SET_FULL = 0x28,
	SAM_ACA_ACTIVE = 0x30,
	SAM_TASK_ABORTED = 0x40,
};

/* SPC-4 table 45 */
enum sense_key {
	SENSE_NO_SENSE = 0x0,
	SENSE_RECOVERED_ERROR = 0x1,
	SENSE_NOT_READY = 0x2,
	SENSE_MEDIUM_ERROR = 0x3,
	SENSE_HARDWARE_ERROR = 0x4,
	SENSE_ILLEGAL_REQUEST = 0x5,
	SENSE_UNIT_ATTENTION = 0x6,
	SENSE_DATA_PROTECT = 0x7,
	SENSE_BLANK_CHECK = 0x8,
	SENSE_COPY_ABORTED = 0xa,
	SENSE_ABORTED_COMMAND = 0xb,
	SENSE_VOLUME_OVERFLOW = 0xd,
	SENSE_MISCOMPARE = 0xe,
};

struct sense {
	uint8_t key, asc, ascq;
};

struct scsi_command {
	/* what is asked, by the submitter */
	uint8_t cdb[16], cdb_length;
	enum scsi_direction direction;
	uint16_t lun;
	uint32_t length; /* bytes of data, the sum of iov; a READ's must all come */
	const struct iovec *iov;
	int niov;
	bool exact; /* a READ or WRITE of data: any residual or missing byte is an error (SAFETY.md
	               13) */
	unsigned timeout_ms; /* 0: the port's command_timeout */
	bool replay;         /* may be executed twice: sent again by itself after a loss (SAFETY.md
	                        12) */
	const bool *cancelled; /* as io's: what was not sent need not be, and ends with -EINTR */
	void (*done)(struct scsi_command *command); /* exactly once, never from inside execute() */
	void *data;                                 /* the submitter's */

	/*
	 * What came: error is 0, and status is the target's; or error is -errno, and the command
	 * has no answer. -ESTALE: the session was lost, and it was executed, or not.
	 */
	int error;
	bool timed_out; /* with -ESTALE: because this one took longer than timeout_ms */
	uint8_t status;
	struct sense sense; /* with CHECK CONDITION */
	/* It is that of an earlier command, which had ended with GOOD: this one was not executed
	 * (deferred error, SPC-4, 4.5.7). */
	bool deferred;
	uint32_t received; /* bytes of Data-In, where the port knows; length less the residual */

	/* the port's, from execute() to done() */
	struct scsi_command *prev, *next;
	void *port_owner, *port_data;
	int64_t deadline_ms;
	uint64_t canary; /* 0: none */
	/* a nexus's, which hands it on to another port */
	void (*nexus_done)(struct scsi_command *command);
	void *nexus;
	uint64_t nexus_order;
};

static inline bool scsi_command_is_cancelled(const struct scsi_command *command)
{
	return command->cancelled && *command->cancelled;
}

struct scsi_port;
struct scsi_port_ops {
	void (*execute)(struct scsi_port *port, struct scsi_command *command);
};
struct scsi_port {
	const struct scsi_port_ops *ops;
	/* The largest WRITE and READ that travel without a round trip of their own; bytes, 0: no
	 * limit. */
	uint32_t write_burst, read_burst;
	unsigned command_timeout_ms; /* of a command that names no other */
};

static inline void scsi_execute(struct scsi_port *port, struct scsi_command *command)
{
	port->ops->execute(port, command);
}

/* ---- sense ---- */

enum sense_action {
	SENSE_FAIL,        /* with the errno */
	SENSE_OK,          /* it was done (RECOVERED ERROR) */
	SENSE_RETRY,       /* soon: unit attention, ABORTED COMMAND, deferred error */
	SENSE_RETRY_LATER, /* BUSY, TASK SET FULL, becoming ready */
};

/*
 * What an answered command's status and sense data mean: *error gets 0 or -errno, for the day when
 * retries are used up too.
 */
enum sense_action sense_judge(const struct scsi_command *command, int *error);
/* "WRITE(16): NOT READY (2), medium not present (3Ah/00h)"; writes at most size bytes, returns
 * buffer. */
const char *sense_describe(const struct scsi_command *command, char *buffer, size_t size);
/* Has another host taken the LUN over: RESERVATIONS PREEMPTED, RELEASED, REGISTRATIONS PREEMPTED
 * (2Ah/03h to 05h; SAFETY.md 7). */
static inline bool sense_is_preempted(const struct sense *sense)
{
	return sense->asc == 0x2a && sense->ascq >= 0x03 && sense->ascq <= 0x05;
}
/* REPORTED LUNS DATA HAS CHANGED (3Fh/0Eh) */
static inline bool sense_is_of_luns(const struct sense *sense)
{
	return sense->asc == 0x3f && sense->ascq == 0x0e;
}
/* A deferred error that tells of a write that was not done, or of data that was not kept. */
static inline bool sense_tells_of_loss(const struct scsi_command *command)
{
	return command->status == SAM_CHECK_CONDITION && command->deferred &&
	       command->sense.key != SENSE_NO_SENSE && command->sense.key != SENSE_RECOVERED_ERROR;
}
const char *scsi_opcode_name(uint8_t opcode);

/* ---- big-endian fields ---- */

static inline uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)get_be16(p) << 16 | get_be16(p + 2);
}
static inline uint64_t get_be64(const uint8_t *p)
{
	return (uint64_t)get_be32(p) << 32 | get_be32(p + 4);
}
static inline void put_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}
static inline void put_be32(uint8_t *p, uint32_t v)
{
	put_be16(p, (uint16_t)(v >> 16));
	put_be16(p + 2, (uint16_t)v);
}
static inline void put_be64(uint8_t *p, uint64_t v)
{
	put_be32(p, (uint32_t)(v >> 32));
	put_be32(p + 4, (uint32_t)v);
}

/* ---- probe: what a logical unit is ---- */

/* SPC-4 table 144, as far as lunfs names them */
enum scsi_type {
	SCSI_TYPE_DISK = 0x00,
	SCSI_TYPE_TAPE = 0x01,
	SCSI_TYPE_WORM = 0x04,
	SCSI_TYPE_CD = 0x05,
	SCSI_TYPE_OPTICAL = 0x07,
	SCSI_TYPE_CHANGER = 0x08,
	SCSI_TYPE_ARRAY = 0x0c,
	SCSI_TYPE_NONE = 0x1f,
};

struct lun_info {
	uint16_t lun;
	uint8_t type;
	char vendor[9], product[17], revision[5]; /* INQUIRY, blanks trimmed */
	char serial[64];                          /* VPD 80h */
	char wwid[128];  /* VPD 83h, as udev writes it: "naa.6001405...", "eui.", "t10."; "" where
	                    none */
	uint64_t blocks; /* READ CAPACITY */
	uint32_t block_size;     /* bytes */
	uint32_t max_transfer;   /* blocks; VPD B0h; 0: none reported */
	uint64_t max_write_same; /* blocks; VPD B0h; 0: none reported */
	bool write_protected, fua,
	    write_cache;   /* mode pages; write_cache is true where unknown (SAFETY.md 1) */
	bool unmap_zeroes; /* LBPME, LBPRZ and LBPWS: WRITE SAME with UNMAP leaves zeros */
	bool reserved;     /* it met RESERVATION CONFLICT when it was asked */
	/* Why it has no capacity now ("no medium"), or "". A disk or CD with a fault is shown as a
	 * fault. */
	char fault[160];
};

/* "disk", "CD/DVD", "tape", ... */
const char *scsi_type_name(uint8_t type);
/* Can its designator not tell it from another one: none, or made from target and LUN numbers. */
bool lun_identity_is_weak(const struct lun_info *info);
/*
 * May its commands outlive the reinstatement of their session? tgt answers the new login before its
 * I/O threads are done with the old session's commands (1.0.85; against RFC 7143, 6.3.5).
 */
bool lun_outlives_sessions(const struct lun_info *info);
/* Is it shown as a file: types 0, 4, 5, 7 (SBC block devices and MMC). */
bool scsi_type_is_block(uint8_t type);

struct probe;
/*
 * Asks the target which logical units there are, and each, in parallel, what it is.
 *
 * lun >= 0 asks for that one alone. done() gets the result in order of lun numbers, or error with
 * the sentence that says why there is none; both live until it returns. Never from inside
 * probe_start().
 */
typedef void (*probe_done_fn)(
    const struct lun_info *luns, unsigned count, const char *error, void *data);
struct probe *probe_start(
    struct scsi_port *port, struct loop *loop, int lun, probe_done_fn done, void *data);
/* The same of these; those that are not there are left out, and there may be none at all. */
struct probe *probe_some(struct scsi_port *port, struct loop *loop, const uint16_t *luns,
    unsigned count, probe_done_fn done, void *data);
/* Asks only which there are: of the result nothing but the numbers is known, and it may be empty.
 * A target that does not say is an error. */
struct probe *probe_list(struct scsi_port *port, struct loop *loop, probe_done_fn done, void *data);
/* Is done() still to come? Of NULL it is not. */
bool probe_is_busy(const struct probe *probe);
/* What a unit attention told that a command of the probe fetched. */
struct probe_news {
	uint16_t lun;
	bool reset;     /* 29h, a deferred error: what was not flushed may be lost */
	bool preempted; /* 2Ah/03h to 05h, RESERVATION CONFLICT: another host has the LUN */
	bool medium;    /* 28h: it may be another one */
	bool changed;   /* 2Ah, 3Fh: what it was asked before may have another answer now */
	bool luns;      /* 3Fh/0Eh: so may REPORT LUNS */
};
/*
 * Calls heard() with probe_start()'s data for each, of any LUN, before the answers that follow it,
 * which mean something else: a target tells each once, and who asked for something else must not
 * swallow it. To be called right after probe_start().
 */
void probe_on_news(struct probe *probe, void (*heard)(const struct probe_news *news, void *data));
/* The session is lost: nothing more is sent, and done() may not come. */
void probe_session_lost(struct probe *probe);
/* Did a command of it take longer than it may? */
bool probe_timed_out(const struct probe *probe);
/* Only after done(), or once the port has returned every command. */
void probe_free(struct probe *probe);

/* ---- disk: a logical unit as a block ---- */

/*
 * Offsets and lengths are whole logical blocks; requests are split to the limits of the LUN and of
 * the port; what a target asks to try again is tried again, within limits, and logged in words
 * under name.
 */
struct block *disk_new(struct loop *loop, struct scsi_port *port, const struct lun_info *info,
    const char *name, bool read_only);
/*
 * The session below was lost: LOST goes up, and what the disk was about to write ends with -ESTALE.
 */
void disk_lost(struct block *disk);
/* Nobody will reach the LUN for a while, or it is another one: GONE goes up. disk_back() ends it.
 */
void disk_gone(struct block *disk);
void disk_back(struct block *disk);
/* Another host has taken the LUN over: FENCED goes up. The medium is another: CHANGED. */
void disk_fenced(struct block *disk);
void disk_changed(struct block *disk);
enum disk_verdict {
	DISK_SAME,   /* what changed of it is known now; another capacity was told upwards */
	DISK_ABSENT, /* it is not ready: ask again */
	DISK_OTHER, /* another logical unit, or one that lost what is needed of it (SAFETY.md 14) */
};
/*
 * Compares with what the disk was made from: designator, block size, and a capacity of reach bytes
 * at least. text (of size bytes) gets what is wrong, naming both.
 */
enum disk_verdict disk_verify(
    struct block *disk, const struct lun_info *info, uint64_t reach, char *text, size_t size);
enum disk_attention {
	DISK_CHANGED,  /* what is known of it is to be asked for again */
	DISK_LUNS,     /* so is which LUNs there are (3Fh/0Eh) */
	DISK_RESTLESS, /* it loses what is written again and again: more tries only repeat that */
};
/* Calls fn(what, data) on an answer of the LUN. */
void disk_on_attention(
    struct block *disk, void (*fn)(enum disk_attention what, void *data), void *data);

/* Counters, for status. */
struct disk_stats {
	uint64_t reads, writes, flushes, bytes_read, bytes_written, retries, errors;
	/* Commands that ended with RESERVATION CONFLICT, and microseconds since 1970: since when
	 * another host has the LUN, 0: it has not, as far as known; and when it was seen last. A
	 * reservation ends for us when a WRITE succeeds, or a READ, if READs were refused too. */
	uint64_t conflicts;
	int64_t reserved_since_us, reserved_seen_us;
	bool reserved_for_writing; /* READs have not met it */
	/* Of commands, from the first time that the port got them to the final answer: what waits
	 * for a session or is tried again takes that long. Zeroing is writing. */
	struct histogram read_latency, write_latency, flush_latency;
};
const struct disk_stats *disk_stats(const struct block *disk);
