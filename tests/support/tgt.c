/*
 * tgt.c - starts, fills and ends a tgtd.
 */
#include "support/tgt.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_RECV_DATA_SEGMENT 262144 /* tgt's default of 8 KiB would make every write 32 PDUs */

uint16_t free_port(void)
{
	for (;;) {
		struct sockaddr_in address = {.sin_family = AF_INET,
		    .sin_port = htons((uint16_t)g_random_int_range(10240, 32768)),
		    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int failed = bind(fd, (struct sockaddr *)&address, sizeof(address));

		close(fd);
		if (!failed)
			return ntohs(address.sin_port);
	}
}

/* True when it answers on the port; false when another process got the port first. */
static bool launch(struct tgt *tgt, uint16_t port)
{
	struct stage *stage = tgt->stage;
	char *log = text(stage, "%s/tgtd.log", stage->dir);
	char *socket_path;

	tgt->port = port;
	tgt->portal = text(stage, "127.0.0.1:%u", tgt->port);
	socket_path = text(stage, "TGT_IPC_SOCKET=%s/tgtd-%u", stage->dir, tgt->port);
	tgt->admin = text(stage, "%s tgtadm -C %u --lld iscsi", socket_path, tgt->port);
	tgt->pid = sh_start(stage, 0, log, log, "env %s tgtd -f -C %u --iscsi portal=%s",
	    socket_path, tgt->port, tgt->portal);
	for (double end = seconds_now() + patience(10); seconds_now() < end; g_usleep(20000)) {
		struct result *portals = sh(stage, "%s --mode portal --op show", tgt->admin);

		if (portals->status == 0 && strstr(portals->out, tgt->portal))
			return true;
		if (waitpid(tgt->pid, NULL, WNOHANG) == tgt->pid)
			return false;
	}
	kill(tgt->pid, SIGKILL);
	waitpid(tgt->pid, NULL, 0);
	return false;
}

struct tgt *tgt_start(struct stage *stage)
{
	return tgt_start_in(stage, stage->dir);
}

struct tgt *tgt_start_in(struct stage *stage, char *directory)
{
	struct tgt *tgt = g_new0(struct tgt, 1);

	g_ptr_array_add(stage->owned, tgt);
	tgt->stage = stage;
	tgt->dir = directory;
	for (int attempt = 0; attempt < 5; attempt++)
		if (launch(tgt, free_port()))
			return tgt;
	cr_assert_fail("tgtd does not start:\n%s", must(stage, "cat tgtd.log"));
	return NULL;
}

void tgt_restart(struct tgt *tgt)
{
	for (int attempt = 0; attempt < 5; attempt++)
		if (launch(tgt, tgt->port))
			return;
	cr_assert_fail("tgtd does not start again:\n%s", must(tgt->stage, "cat tgtd.log"));
}

void tgt_set(struct tgt *tgt, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	g_autofree char *words = g_strdup_vprintf(format, args);
	va_end(args);
	must(tgt->stage, "%s %s", tgt->admin, words);
}

void tgt_add_target(struct tgt *tgt, unsigned tid, const char *iqn)
{
	tgt_set(tgt, "--mode target --op new --tid %u --targetname %s", tid, iqn);
	tgt_set(tgt, "--mode target --op bind --tid %u --initiator-address ALL", tid);
	tgt_set(tgt,
	    "--mode target --op update --tid %u --name MaxRecvDataSegmentLength --value %u", tid,
	    MAX_RECV_DATA_SEGMENT);
}

char *tgt_add_lun_spec(struct tgt *tgt, unsigned tid, struct lun_spec spec)
{
	const char *type = spec.type ? spec.type : "disk";
	char *file = text(tgt->stage, "%s/target%u-lun%u", tgt->dir, tid, spec.lun);
	g_autofree char *size = g_strdup_printf("%" PRIu64, spec.size);

	if (strcmp(type, "tape") == 0) /* a tape is a formatted file */
		must(tgt->stage,
		    "tgtimg --op new --device-type tape --barcode LUNFS1 --size 16 --type data "
		    "--file %s",
		    file);
	else
		must(tgt->stage, "truncate -s %s %s", size, file);

	g_autofree char *block_size =
	    spec.block_size ? g_strdup_printf("--blocksize %u", spec.block_size) : g_strdup("");
	tgt_set(tgt,
	    "--mode logicalunit --op new --tid %u --lun %u --device-type %s %s%s %s "
	    "--backing-store '%s'",
	    tid, spec.lun, type, strcmp(type, "tape") == 0 ? "--bstype ssc" : "",
	    strcmp(type, "changer") == 0 ? "--bstype null" : "", block_size,
	    spec.no_medium ? "" : file);
	if (spec.read_only || spec.offline || spec.thin)
		tgt_set(tgt, "--mode logicalunit --op update --tid %u --lun %u --params %s%s%s",
		    tid, spec.lun, spec.read_only ? "readonly=1," : "",
		    spec.offline ? "removable=1,online=0," : "",
		    spec.thin ? "thin_provisioning=1," : "");
	return file;
}

void tgt_allow_only(struct tgt *tgt, unsigned tid, const char *initiator_name)
{
	tgt_set(tgt, "--mode target --op unbind --tid %u --initiator-address ALL", tid);
	tgt_set(tgt, "--mode target --op bind --tid %u --initiator-name %s", tid, initiator_name);
}

void tgt_chap(struct tgt *tgt, unsigned tid, const char *user, const char *secret)
{
	tgt_set(tgt, "--mode account --op new --user %s --password %s", user, secret);
	tgt_set(tgt, "--mode account --op bind --tid %u --user %s", tid, user);
}

void tgt_chap_outgoing(struct tgt *tgt, unsigned tid, const char *user, const char *secret)
{
	tgt_set(tgt, "--mode account --op new --user %s --password %s", user, secret);
	tgt_set(tgt, "--mode account --op bind --tid %u --user %s --outgoing", tid, user);
}

char *tgt_url(struct tgt *tgt, const char *iqn, int lun)
{
	char *url = text(tgt->stage, "iscsi://%s/%s", tgt->portal, iqn);

	return lun < 0 ? url : text(tgt->stage, "%s/%d", url, lun);
}

void tgt_freeze(struct tgt *tgt)
{
	cr_assert(kill(tgt->pid, SIGSTOP) == 0);
}

void tgt_thaw(struct tgt *tgt)
{
	cr_assert(kill(tgt->pid, SIGCONT) == 0);
}

void tgt_kill(struct tgt *tgt)
{
	cr_assert(kill(tgt->pid, SIGKILL) == 0);
	cr_assert(waitpid(tgt->pid, NULL, 0) == tgt->pid);
}

void tgt_allow_address(struct tgt *tgt, unsigned tid, const char *address)
{
	tgt_set(tgt, "--mode target --op unbind --tid %u --initiator-address ALL", tid);
	tgt_set(tgt, "--mode target --op bind --tid %u --initiator-address %s", tid, address);
}

void tgt_discovery_chap(struct tgt *tgt, const char *user, const char *secret)
{
	tgt_set(tgt, "--mode account --op new --user %s --password %s", user, secret);
	tgt_set(tgt, "--mode account --op bind --user %s", user);
}

void tgt_discovery_chap_outgoing(struct tgt *tgt, const char *user, const char *secret)
{
	tgt_set(tgt, "--mode account --op new --user %s --password %s", user, secret);
	tgt_set(tgt, "--mode account --op bind --user %s --outgoing", user);
}
