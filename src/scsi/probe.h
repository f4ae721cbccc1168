/*
 * probe.h - what probe.c (the machine) and probe_steps.c (what is asked of a LUN) share. Private to
 * the room.
 */
#pragma once

#include <glib.h>

#include "lunfs/loop.h"
#include "lunfs/scsi.h"

struct lane;

struct step {
	bool (*applies)(const struct lane *lane);
	void (*ask)(struct lane *lane);
	/* GOOD, and what came */
	void (*answered)(struct lane *lane, const uint8_t *data, size_t size);
	/* a final refusal; NULL: it was optional */
	void (*refused)(struct lane *lane);
};

/* Who works on one LUN after another. The lane of REPORT LUNS is the first, before it has a LUN. */
struct lane {
	struct probe *probe;
	struct lun_info *info;
	const struct step *step; /* NULL: REPORT LUNS */
	struct scsi_command command;
	struct iovec iov;
	uint8_t *data;
	size_t room;
	GSource *pause;
	unsigned retries, pauses;

	bool absent;        /* no logical unit has this number */
	bool has[256];      /* VPD pages */
	bool by_write_same; /* LBPWS */
	bool zeroes;        /* LBPME and LBPRZ */
	bool has_mode;      /* MODE SENSE has answered */
	char refusal[200];  /* why it is left out, where it does not say that it is not there */
};

/* In the order in which they are asked. */
extern const struct step probe_steps[];
extern const struct step *const probe_steps_end;

/* Room for an answer of size bytes. */
void lane_receive(struct lane *lane, size_t size);
