/*
 * script_raw.h - an initiator that hides nothing: it sends one PDU, and shows the next that comes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct raw {
	int fd;
	uint32_t cmdsn, itt; /* of the next and of the last command */
	uint8_t header[48];  /* of the last PDU that came */
	uint8_t data[65536];
	size_t length; /* of the data, as its header says */
};

/* 127.0.0.1:port. What does not come within 10 s does not come. */
struct raw raw_connect(uint16_t port);
/* Fills in the data segment's length, and sends it padded. */
void raw_send(struct raw *raw, uint8_t *header, const void *data, size_t length);
/* Receives the next PDU; its opcode, or -1 at the end of the connection. A PDU with more data than
 * there is room for is the last. */
int raw_receive(struct raw *raw);
/* In one PDU, without security stage. The status class and detail it ends with, or -1. */
int raw_login(struct raw *raw, const char *initiator, const char *target, uint8_t isid);
/* READ(16) or WRITE(16) of the first bytes of LUN 1; all data is immediate. */
void raw_command(struct raw *raw, uint8_t opcode, const void *data, uint32_t length);
