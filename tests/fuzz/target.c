/*
 * target.c - the hostile target: its connection, its answers (target.h). edit.c changes them.
 *
 * It answers what it is sent, within one call of pump(), and keeps no data.
 */
#include "target.h"

#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edit.h"
#include "lun.h"
#include "lunfs/scsi.h"

#define MAX_CONNECTIONS 2u
#define MAX_WRITES      32u
#define SEGMENT         (256u << 10)
#define PATTERN         (256u * 512)
#define CHAP_ID         7
#define LOGIN_MOST      8192u /* bytes of a Login Request's text (RFC 7143, 13.12) */
#define REDIRECTS_MOST  12u

/* A WRITE whose data is not all here. */
struct write {
	bool used;
	uint32_t itt, length, received, r2tsn;
	uint8_t lun[8];
};

static struct {
	uint8_t behaviour, shape;
	struct script script;
	int fd;
	unsigned connections;
	GByteArray *in;
	struct outbox outbox;
	bool full_feature, raw_sent, digest, refused;
	bool heard_proof, proved; /* of CHAP: the initiator's; its own was sent */
	GHashTable *heard;        /* names of the keys of a login */
	uint32_t statsn, expcmdsn;
	struct write writes[MAX_WRITES];
} target = {.fd = -1};

/* ---- what it is ---- */

uint32_t target_block_size(void)
{
	return lun_block_size(target.shape);
}

/* What the disk holds repeats after 256 times 512 bytes. */
const uint8_t *target_bytes(uint64_t offset)
{
	static uint8_t bytes[PATTERN + TARGET_MOST];

	if (bytes[1] == 0)
		for (size_t i = 0; i < sizeof bytes; i++)
			bytes[i] = (uint8_t)(i / 512 * 31 + i);
	return bytes + offset % PATTERN;
}

static bool target_is_raw(void)
{
	return (target.behaviour & BEHAVIOUR_KIND) >= RAW;
}

bool target_was_correct(void)
{
	return !target.script.edited && !target_is_raw();
}

bool target_has_proved(void)
{
	return target.proved;
}

bool target_is_over(void)
{
	return target.refused;
}

/* ---- sending ---- */

static void response_init(uint8_t *header, uint8_t opcode, const uint8_t *request)
{
	memset(header, 0, PDU_HEADER);
	header[0] = opcode;
	header[1] = 0x80;
	memcpy(header + 16, request + 16, 4); /* ITT */
}

/* with_status: it has a StatSN of its own. */
static void target_send(uint8_t *header, const void *data, size_t length, bool with_status)
{
	GByteArray *pdu = g_byte_array_sized_new((guint)(PDU_HEADER + length + 8));

	put_be32(header + 4, (uint32_t)length & 0xffffff);
	put_be32(header + 24, target.statsn);
	target.statsn += with_status;
	put_be32(header + 28, target.expcmdsn);
	put_be32(header + 32, target.expcmdsn + 32);
	g_byte_array_append(pdu, header, PDU_HEADER);
	if (length > 0)
		g_byte_array_append(pdu, data, (guint)length);
	outbox_add(&target.outbox, &target.script, pdu, target.digest);
}

/* ---- the login ---- */

static void text_add(GByteArray *text, const char *key, const char *value)
{
	g_byte_array_append(text, (const guint8 *)key, (guint)strlen(key));
	g_byte_array_append(text, (const guint8 *)"=", 1);
	g_byte_array_append(text, (const guint8 *)value, (guint)strlen(value) + 1);
}

static const char *text_find(const GByteArray *text, const char *key)
{
	size_t length = strlen(key);

	for (size_t at = 0; at < text->len;
	     at += strnlen((char *)text->data + at, text->len - at) + 1)
		if (text->len - at > length && memcmp(text->data + at, key, length) == 0 &&
		    text->data[at + length] == '=')
			return (const char *)text->data + at + length + 1;
	return NULL;
}

/* No discovery has them. */
static bool target_does_digests(void)
{
	return (target.behaviour & BEHAVIOUR_HEADER_DIGEST) &&
	       !(target.behaviour & BEHAVIOUR_DISCOVERY);
}

static bool target_has_small_bursts(void)
{
	unsigned how = target.shape & SHAPE_NEGOTIATION;

	return how == SMALL_BURSTS || how == SMALL_SEGMENTS;
}

/* MaxBurstLength, bytes. */
static uint32_t target_burst(void)
{
	return target_has_small_bursts() ? 1024 : SEGMENT;
}

static void text_add_operational(GByteArray *text)
{
	unsigned how = target.shape & SHAPE_NEGOTIATION;
	bool small = target_has_small_bursts();

	text_add(text, "HeaderDigest", target_does_digests() ? "CRC32C" : "None");
	text_add(text, "DataDigest", "None");
	text_add(
	    text, "InitialR2T", how == SMALL_BURSTS || how == NO_IMMEDIATE_DATA ? "Yes" : "No");
	text_add(text, "ImmediateData", how == NO_IMMEDIATE_DATA ? "No" : "Yes");
	text_add(text, "FirstBurstLength", small ? "512" : "262144");
	text_add(text, "MaxBurstLength", small ? "1024" : "262144");
	text_add(text, "MaxRecvDataSegmentLength", how == SMALL_SEGMENTS ? "512" : "262144");
	text_add(text, "ErrorRecoveryLevel", "0");
	if (!(target.behaviour & BEHAVIOUR_DISCOVERY))
		text_add(text, "TargetPortalGroupTag", "1");
}

/* CHAP_R of the target: MD5 of identifier, secret and challenge (RFC 1994). */
static void text_add_proof(GByteArray *text, const GByteArray *request)
{
	const char *id = text_find(request, "CHAP_I"), *challenge = text_find(request, "CHAP_C");
	g_autoptr(GChecksum) md5 = g_checksum_new(G_CHECKSUM_MD5);
	g_autofree char *proof = NULL;
	guint8 byte;

	if (id == NULL || challenge == NULL || strlen(challenge) < 2)
		return;
	byte = (guint8)g_ascii_strtoull(id, NULL, 10);
	g_checksum_update(md5, &byte, 1);
	g_checksum_update(md5, (const guchar *)CHAP_SECRET, strlen(CHAP_SECRET));
	for (challenge += 2; challenge[0] && challenge[1]; challenge += 2) {
		byte = (guint8)(g_ascii_xdigit_value(challenge[0]) << 4 |
		                g_ascii_xdigit_value(challenge[1]));
		g_checksum_update(md5, &byte, 1);
	}
	proof = g_strdup_printf("0x%s", g_checksum_get_string(md5));
	text_add(text, "CHAP_N", CHAP_USER_IN);
	text_add(text, "CHAP_R", proof);
	target.proved = true;
}

/* Answers the security stage; true: it is over. */
static bool text_add_security(GByteArray *text, const GByteArray *request)
{
	bool chap = target.behaviour & BEHAVIOUR_CHAP;
	const char *proof = text_find(request, "CHAP_R");

	if (text_find(request, "AuthMethod") != NULL)
		text_add(text, "AuthMethod", chap ? "CHAP" : "None");
	if (text_find(request, "CHAP_A") != NULL) {
		text_add(text, "CHAP_A", "5");
		text_add(text, "CHAP_I", G_STRINGIFY(CHAP_ID));
		text_add(text, "CHAP_C", "0x00112233445566778899aabbccddeeff");
	}
	if (proof != NULL) {
		target.heard_proof = true;
		g_strlcpy(target.script.proof, proof, sizeof target.script.proof);
		text_add_proof(text, request);
	}
	return !chap || target.heard_proof;
}

/* What holds for each Login Request, whatever lunfs was told. */
static void check_login_request(const uint8_t *request, const GByteArray *text)
{
	const char *wrong = NULL;

	if (!(request[1] & 0x80) && (request[1] & 0x03))
		wrong = "has a next stage without T";
	if (request[1] & 0x40)
		wrong = "is not whole";
	if (text->len > LOGIN_MOST)
		wrong = "is too long";
	if (target.script.rest != NULL && text->len != 0 && target_was_correct())
		wrong = "says something while the target has not said all";
	for (guint at = 0; at < text->len;) {
		g_autofree char *name = g_strndup((char *)text->data + at, text->len - at);

		at += (guint)strlen(name) + 1;
		if (strchr(name, '=') == NULL)
			wrong = "has text that is no pair";
		else
			*strchr(name, '=') = '\0';
		if (!g_hash_table_add(target.heard, g_steal_pointer(&name)))
			wrong = "says a key twice";
	}
	if (wrong == NULL)
		return;
	fprintf(stderr, "fuzz: a Login Request %s\n", wrong);
	abort();
}

/* True: the answer goes on where it was cut. */
static bool answer_goes_on(const uint8_t *request)
{
	g_autoptr(GByteArray) rest = g_steal_pointer(&target.script.rest);
	uint8_t header[PDU_HEADER];

	if (rest == NULL)
		return false;
	memcpy(header, rest->data, PDU_HEADER);
	memcpy(header + 16, request + 16, 4); /* ITT */
	target_send(header, rest->data + PDU_HEADER, rest->len - PDU_HEADER, true);
	return true;
}

/* The last answer of the login has left. */
static void target_ends_login(void)
{
	target.full_feature = true;
	target.digest = target_does_digests();
}

static void answer_login(const uint8_t *request, const GByteArray *keys)
{
	g_autoptr(GByteArray) text = g_byte_array_new();
	uint8_t header[PDU_HEADER], stage = request[1] >> 2 & 3;
	bool transit = request[1] & 0x80;

	check_login_request(request, keys);
	if (target.script.rest != NULL) {
		bool last = (target.script.rest->data[1] & 0x8c) == 0x84;

		answer_goes_on(request);
		if (last && !target.script.keeps_open)
			target_ends_login();
		return;
	}
	response_init(header, 0x23, request);
	if (stage == 0)
		transit &= text_add_security(text, keys);
	else if (text_find(keys, "DataDigest") != NULL)
		text_add_operational(text);
	header[1] = (uint8_t)(stage << 2 | (transit ? 0x80 | (request[1] & 3) : 0));
	memcpy(header + 8, request + 8, 6); /* ISID */
	header[15] = stage && transit;      /* TSIH */
	target_send(header, text->data, text->len, true);
	if (stage != 0 && transit && !target.script.keeps_open)
		target_ends_login();
}

/* ---- text, NOP, logout, task management ---- */

static void answer_text(const uint8_t *request)
{
	static const char targets[] = "TargetName=" TARGET_NAME "\0"
	                              "TargetAddress=127.0.0.1:3260,1\0"
	                              "TargetAddress=[::1]:3260,2\0"
	                              "TargetName=iqn.2026-01.org.lunfs:other";
	uint8_t header[PDU_HEADER];

	if (answer_goes_on(request))
		return;
	response_init(header, 0x24, request);
	memset(header + 20, 0xff, 4);
	target_send(header, targets, sizeof targets, true);
}

static void answer_short(const uint8_t *request, uint8_t opcode)
{
	uint8_t header[PDU_HEADER];

	if (opcode == 0x20 && get_be32(request + 16) == UINT32_MAX) /* an answer to our NOP-In */
		return;
	response_init(header, opcode, request);
	if (opcode == 0x20)
		memset(header + 20, 0xff, 4);
	target_send(header, NULL, 0, true);
}

/* ---- SCSI ---- */

static void answer_status(const uint8_t *request, uint8_t status, uint8_t key, uint8_t asc)
{
	const uint8_t sense[20] = {0, 18, 0x70, 0, key, [9] = 10, [14] = asc};
	uint8_t header[PDU_HEADER];

	response_init(header, 0x21, request);
	header[3] = status;
	target_send(header, sense, status == SAM_CHECK_CONDITION ? sizeof sense : 0, true);
}

/* What there is, and a residual where that is less than was asked for. */
static void answer_data(const uint8_t *request, const uint8_t *data, size_t length)
{
	uint32_t wanted = get_be32(request + 20), burst = target_burst();
	uint8_t header[PDU_HEADER];

	for (size_t at = 0, part; at < length || at == 0; at += part) {
		part = MIN(MIN(length, wanted) - at, burst);
		bool last = part == MIN(length, wanted) - at;
		response_init(header, 0x25, request);
		header[1] = last ? 0x81 : 0x80; /* each PDU is a burst */
		memset(header + 20, 0xff, 4);
		put_be32(header + 36, (uint32_t)(at / burst)); /* DataSN */
		put_be32(header + 40, (uint32_t)at);
		if (last && length < wanted) {
			header[1] |= 0x02;
			put_be32(header + 44, wanted - (uint32_t)length);
		}
		target_send(header, data + at, part, last);
		if (last)
			return;
	}
}

static void answer_read(const uint8_t *request, uint64_t lba)
{
	size_t length = MIN(get_be32(request + 20), TARGET_MOST);

	answer_data(request, target_bytes(lba * target_block_size()), length);
}

/* ---- WRITE ---- */

/* Asks for what is not there yet, or says that it is done. */
static void write_go_on(struct write *write, const uint8_t *request)
{
	uint8_t header[PDU_HEADER];

	if (write->received >= write->length) {
		write->used = false;
		answer_status(request, SAM_GOOD, 0, 0);
		return;
	}
	response_init(header, 0x31, request);
	memcpy(header + 8, write->lun, 8);
	put_be32(header + 20, (uint32_t)(write - target.writes) + 1); /* TTT */
	put_be32(header + 36, write->r2tsn++);
	put_be32(header + 40, write->received);
	put_be32(header + 44, MIN(write->length - write->received, target_burst()));
	target_send(header, NULL, 0, false);
}

static void take_write(const uint8_t *request, uint32_t immediate)
{
	for (size_t i = 0; i < MAX_WRITES; i++) {
		struct write *write = &target.writes[i];

		if (write->used)
			continue;
		*write = (struct write){.used = true,
		    .itt = get_be32(request + 16),
		    .length = get_be32(request + 20),
		    .received = immediate};
		memcpy(write->lun, request + 8, 8);
		if ((request[1] & 0x80) || write->received >= write->length)
			write_go_on(write, request);
		return;
	}
	answer_status(request, SAM_TASK_SET_FULL, 0, 0);
}

static void take_data_out(const uint8_t *request, uint32_t length)
{
	for (size_t i = 0; i < MAX_WRITES; i++) {
		struct write *write = &target.writes[i];

		if (!write->used || write->itt != get_be32(request + 16))
			continue;
		write->received += length;
		if (request[1] & 0x80)
			write_go_on(write, request);
		return;
	}
}

static void answer_command(const uint8_t *request, uint32_t immediate)
{
	const uint8_t *cdb = request + 32;
	uint8_t data[LUN_TELLS] = {0};
	size_t length;

	switch (cdb[0]) {
	case 0x28:
		answer_read(request, get_be32(cdb + 2));
		return;
	case 0x88:
		answer_read(request, get_be64(cdb + 2));
		return;
	case 0x2a:
	case 0x8a:
	case 0x93:
		take_write(request, immediate);
		return;
	case 0x00:
	case 0x35:
	case 0x91:
		answer_status(request, SAM_GOOD, 0, 0);
		return;
	default:
		break;
	}
	length = lun_tell(target.shape, cdb, data);
	if (length > 0)
		answer_data(request, data, length);
	else
		answer_status(request, SAM_CHECK_CONDITION, SENSE_ILLEGAL_REQUEST, 0x20);
}

/* ---- what comes from lunfs ---- */

static void target_hang_up(void)
{
	if (target.fd >= 0)
		close(target.fd);
	target.fd = -1;
	g_byte_array_set_size(target.in, 0);
	outbox_clear(&target.outbox);
}

static void target_answer(const uint8_t *request, const uint8_t *data, uint32_t length)
{
	uint8_t opcode = request[0] & 0x3f;
	bool immediate = request[0] & 0x40;

	if (opcode == 0x03) {
		GByteArray keys = {.data = (guint8 *)data, .len = length};
		target.expcmdsn = get_be32(request + 24);
		answer_login(request, &keys);
		return;
	}
	if (!immediate && opcode != 0x05)
		target.expcmdsn = get_be32(request + 24) + 1;
	script_heard(&target.script, request);
	switch (opcode) {
	case 0x00:
		answer_short(request, 0x20);
		break;
	case 0x01:
		answer_command(request, length);
		break;
	case 0x02:
		answer_short(request, 0x22);
		break;
	case 0x04:
		answer_text(request);
		break;
	case 0x05:
		take_data_out(request, length);
		break;
	case 0x06:
		answer_short(request, 0x26);
		break;
	default:
		/* They may not be of one mind about digests, where the script told of them. */
		if (target_was_correct()) {
			fprintf(stderr, "fuzz: lunfs sends a PDU of opcode %02x\n", opcode);
			abort();
		}
		target_hang_up();
	}
}

/* The script as it is, once a connection. */
static void target_send_raw(void)
{
	if (target.raw_sent)
		return;
	target.raw_sent = true;
	g_byte_array_append(
	    target.outbox.bytes, target.script.at, (guint)(target.script.end - target.script.at));
	target.outbox.closes = true;
}

/* One PDU out of what has come; false: it is not whole. */
static bool target_take(void)
{
	GByteArray *in = target.in;
	size_t header = PDU_HEADER, length;

	if (in->len < PDU_HEADER)
		return false;
	if (target.digest && target.full_feature)
		header += 4;
	length = get_be32(in->data + 4) & 0xffffff;
	if (in->len < header + ((length + 3) & ~(size_t)3))
		return false;
	if ((target.behaviour & BEHAVIOUR_KIND) == RAW ||
	    (target_is_raw() && target.full_feature)) {
		target_send_raw();
	} else {
		target_answer(in->data, in->data + header, (uint32_t)length);
	}
	if (target.fd < 0)
		return true;
	g_byte_array_remove_range(in, 0, (guint)(header + ((length + 3) & ~(size_t)3)));
	return true;
}

static bool target_receive(void)
{
	bool progress = false;

	while (target.fd >= 0) {
		guint had = target.in->len;

		g_byte_array_set_size(target.in, had + SEGMENT);
		ssize_t n = recv(target.fd, target.in->data + had, SEGMENT, 0);
		g_byte_array_set_size(target.in, had + (n > 0 ? (guint)n : 0));
		if (n < 0)
			break;
		progress = true;
		if (n == 0)
			target_hang_up();
		if (n < (ssize_t)SEGMENT)
			break;
	}
	return progress;
}

static bool target_pump(void)
{
	bool progress = target_receive();

	while (target.fd >= 0 && target_take())
		progress = true;
	if (target.fd < 0)
		return progress;
	progress |= outbox_send(&target.outbox, target.fd, world_now_us());
	if (target.outbox.bytes->len == 0 && target.outbox.closes) {
		target_hang_up();
		progress = true;
	}
	return progress;
}

static int64_t target_waits_us(void)
{
	if (target.fd < 0 || target.outbox.bytes->len == 0 ||
	    target.outbox.due_us <= world_now_us())
		return -1;
	return target.outbox.due_us - world_now_us();
}

static bool target_accept(int fd)
{
	unsigned most = MAX_CONNECTIONS + MIN(target.script.redirects, REDIRECTS_MOST);

	if (target.connections++ >= most) {
		target.refused = true;
		return false;
	}
	target_hang_up(); /* one session at a time */
	target.fd = fd;
	target.full_feature = target.raw_sent = target.digest = false;
	target.heard_proof = target.proved = false;
	g_hash_table_remove_all(target.heard);
	g_clear_pointer(&target.script.rest, g_byte_array_unref);
	target.statsn = 1;
	memset(target.writes, 0, sizeof target.writes);
	return true;
}

const struct world_target hostile_target = {
    .accept = target_accept, .pump = target_pump, .waits_us = target_waits_us};

void target_start(const uint8_t *input, size_t size)
{
	target.behaviour = size > 0 ? input[0] : 0;
	target.shape = size > 1 ? input[1] : 0;
	target.script = (struct script){.at = input + MIN(size, 2), .end = input + size};
	target.connections = 0;
	target.refused = false;
	if (target.in == NULL) {
		target.in = g_byte_array_new();
		target.heard = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
		outbox_init(&target.outbox);
	}
}

void target_end(void)
{
	target_hang_up();
	script_clear(&target.script);
}
