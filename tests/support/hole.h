/*
 * hole.h - hosts that do not answer.
 */
#pragma once

#include <stdint.h>

/* Drops packets: its backlog is full, so that a SYN gets no answer. Returns its port on 127.0.0.1.
 */
uint16_t hole_that_drops(void);
/* Takes every connection and says nothing. */
uint16_t hole_that_is_silent(void);
