/*
 * isid.c - ISIDs that stay: a hash of who and where this mount is.
 *
 * The claim is the name of an abstract socket made from the same hash: nobody else can bind it, and
 * the kernel takes it back when the process ends, however it ends.
 */
#include "isid.h"

#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lunfs/log.h"

#define BASE_SIZE 32 /* of a SHA-256 */

struct isid {
	uint8_t base[BASE_SIZE];
	int claim; /* the socket; -1: random */
};

/* One of several parts of a hash: its end is part of it, so that "a", "bc" is not "ab", "c". */
static void hash_text(GChecksum *hash, const char *text)
{
	g_checksum_update(hash, (const guchar *)text, (gssize)strlen(text) + 1);
}

static void hash_end(GChecksum *hash, uint8_t digest[BASE_SIZE])
{
	gsize size = BASE_SIZE;

	g_checksum_get_digest(hash, digest, &size);
}

/* Of the machine: early in a boot /etc/machine-id may be empty, or say "uninitialized". */
static void hash_machine(GChecksum *hash)
{
	g_autofree char *id = NULL;

	if (g_file_get_contents("/etc/machine-id", &id, NULL, NULL) &&
	    strlen(g_strstrip(id)) == 32 && strspn(id, G_CSET_DIGITS "abcdefABCDEF") == 32)
		hash_text(hash, id);
	else
		hash_text(hash, g_get_host_name());
}

static void base_make(uint8_t base[BASE_SIZE], const char *mountpoint)
{
	g_autoptr(GChecksum) hash = g_checksum_new(G_CHECKSUM_SHA256);
	g_autofree char *user = g_strdup_printf("%u", getuid());
	g_autofree char *network = g_file_read_link("/proc/self/ns/net", NULL);

	hash_text(hash, "lunfs isid");
	hash_machine(hash);
	hash_text(hash, user);
	hash_text(hash, network ? network : "");
	hash_text(hash, mountpoint);
	hash_end(hash, base);
}

/* The socket that holds the claim, or -1. */
static int base_claim(const uint8_t base[BASE_SIZE])
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	g_autofree char *name = g_compute_checksum_for_data(G_CHECKSUM_SHA256, base, BASE_SIZE);
	/* the first byte stays 0: an abstract name */
	int length =
	    g_snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "lunfs/isid/%s", name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 &&
	    bind(fd, (struct sockaddr *)&address,
	        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) + (socklen_t)length) != 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

struct isid *isid_claim(const char *mountpoint)
{
	struct isid *isid = g_new0(struct isid, 1);

	base_make(isid->base, mountpoint);
	isid->claim = base_claim(isid->base);
	if (isid->claim >= 0)
		return isid;
	log_debug("the usual ISIDs are taken by another process: random ones are used");
	for (size_t have = 0; have < BASE_SIZE;) {
		ssize_t n = getrandom(isid->base + have, BASE_SIZE - have, 0);

		if (n > 0)
			have += (size_t)n;
		else if (errno != EINTR)
			g_error("getrandom: %s", g_strerror(errno)); /* kernels before 3.17 */
	}
	return isid;
}

void isid_free(struct isid *isid)
{
	if (!isid)
		return;
	if (isid->claim >= 0)
		close(isid->claim);
	g_free(isid);
}

static void isid_of(const struct isid *isid, const char *target, uint8_t digest[BASE_SIZE])
{
	g_autoptr(GChecksum) hash = g_checksum_new(G_CHECKSUM_SHA256);

	g_checksum_update(hash, isid->base, BASE_SIZE);
	hash_text(hash, target);
	hash_end(hash, digest);
}

uint32_t isid_random(const struct isid *isid, const char *target)
{
	uint8_t digest[BASE_SIZE];

	isid_of(isid, target, digest);
	uint32_t number = (uint32_t)digest[0] << 16 | (uint32_t)digest[1] << 8 | digest[2];
	return number ? number : 1;
}

uint16_t isid_qualifier(const struct isid *isid, const char *target)
{
	uint8_t digest[BASE_SIZE];

	isid_of(isid, target, digest);
	uint16_t number = (uint16_t)(digest[3] << 8 | digest[4]);
	return number ? number : 1;
}
