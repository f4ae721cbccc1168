/*
 * script_raw.c - the initiator that shows each PDU (RFC 7143, 11).
 */
#include "support/script_raw.h"
#include "lunfs/scsi.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <glib.h>
#include <string.h>
#include <sys/socket.h>

struct raw raw_connect(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval limit = {.tv_sec = 10};
	struct raw raw = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .cmdsn = 77};

	setsockopt(raw.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	cr_assert_eq(connect(raw.fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return raw;
}

void raw_send(struct raw *raw, uint8_t *header, const void *data, size_t length)
{
	uint8_t padding[4] = {0};

	put_be32(header + 4, (uint32_t)length);
	if (send(raw->fd, header, 48, MSG_NOSIGNAL) == 48 && length > 0) {
		send(raw->fd, data, length, MSG_NOSIGNAL);
		send(raw->fd, padding, -length & 3, MSG_NOSIGNAL);
	}
}

int raw_receive(struct raw *raw)
{
	if (recv(raw->fd, raw->header, 48, MSG_WAITALL) != 48)
		return -1;
	raw->length = get_be32(raw->header + 4) & 0xffffff;
	size_t padded = (raw->length + 3) & ~(size_t)3;
	if (padded > sizeof(raw->data))
		return raw->header[0];
	if (padded && recv(raw->fd, raw->data, padded, MSG_WAITALL) != (ssize_t)padded)
		return -1;
	return raw->header[0];
}

int raw_login(struct raw *raw, const char *initiator, const char *target, uint8_t isid)
{
	uint8_t header[48] = {0x43, 0x87, [8] = 0x80, [13] = isid};
	g_autoptr(GString) keys = g_string_new(NULL);

	g_string_append_printf(keys, "InitiatorName=%s", initiator);
	g_string_append_c(keys, '\0');
	g_string_append_printf(keys, "TargetName=%s", target);
	g_string_append_c(keys, '\0');
	g_string_append_len(keys, "InitialR2T=No", 14);
	put_be32(header + 24, raw->cmdsn);
	raw_send(raw, header, keys->str, keys->len);
	if (raw_receive(raw) != 0x23)
		return -1;
	return get_be16(raw->header + 36);
}

void raw_command(struct raw *raw, uint8_t opcode, const void *data, uint32_t length)
{
	uint8_t header[48] = {0x01, opcode == 0x88 ? 0xc1 : 0xa1, [9] = 1, [32] = opcode};

	put_be32(header + 16, ++raw->itt);
	put_be32(header + 20, length);
	put_be32(header + 24, raw->cmdsn++);
	put_be32(header + 42, length / 512);
	raw_send(raw, header, data, data ? length : 0);
}
