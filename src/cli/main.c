/*
 * main.c - lunfs: iSCSI LUNs as files. Finds the command and hands over to it.
 */
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static const char usage[] =
    "usage: lunfs SOURCE MOUNTPOINT [-o OPTION,...] [-f] [-d]   show LUNs as files\n"
    "       lunfs mount SOURCE MOUNTPOINT [-o OPTION,...] [-f] [-d]\n"
    "       lunfs umount [-f] MOUNTPOINT                        flush, then unmount; -f: at once\n"
    "       lunfs discover PORTAL... [--luns] [--json | --config] [-o OPTION,...]\n"
    "                                                           which targets are there\n"
    "       lunfs status [MOUNTPOINT] [--json]                  sessions, LUNs, counters\n"
    "       lunfs top [MOUNTPOINT]                              the same, live\n"
    "       lunfs rescan MOUNTPOINT                             look for LUNs that came or went\n"
    "       lunfs reload MOUNTPOINT                             read the configuration again\n"
    "       lunfs check [FILE]                                  is the configuration right?\n"
    "       lunfs import [DIRECTORY|FILE]                       make one from open-iscsi's\n"
    "       lunfs --help | --version\n"
    "\n"
    "SOURCE:  iscsi://[USER@]HOST[:PORT]/IQN[/LUN]   one target, or one LUN of it\n"
    "         iscsi://[USER@]HOST[:PORT]             every target of the portal\n"
    "         NAME                                   the section [target NAME] of lunfs.conf\n"
    "         all                                    all of them, in one tree\n"
    "PORTAL:  HOST[:PORT]                            IPv6 in brackets\n"
    "lunfs.conf is in ~/.config/lunfs and /etc/lunfs.\n"
    "-f stays in the foreground; -d does so too, and says what it does.\n"
    "\n"
    "options (-o KEY[=VALUE],...):\n"
    "  ro, rw                        read-only, or not (rw)\n"
    "  shared                        other hosts write to the LUN too (a cluster file system)\n"
    "  allow_other, allow_root       let others in, or root\n"
    "  uid=, gid=, umask=            of the files (the mounter's; 077)\n"
    "  username=, password_file=     CHAP; or LIBISCSI_CHAP_USERNAME, LIBISCSI_CHAP_PASSWORD\n"
    "  username_in=, password_in_file=   mutual CHAP; or LIBISCSI_CHAP_TARGET_USERNAME, "
    "_TARGET_PASSWORD\n"
    "  initiator_name=               who we are (/etc/iscsi/initiatorname.iscsi, or one made "
    "once)\n"
    "  header_digest=none|crc32c     (none)\n"
    "  login_timeout=                until a login must have worked (15s)\n"
    "  command_timeout=              until a command must be answered (30s)\n"
    "  noop_out_interval=, noop_out_timeout=   keepalive (5s, 5s; interval 0 is off)\n"
    "  replacement_timeout=          how long I/O waits for a lost target (120s; infinity)\n"
    "  cache=writeback|writethrough|none       (writeback; with shared: none)\n"
    "  cache_size=                   memory for all LUNs together (64M)\n"
    "  dirty_expire=                 when what was written goes to the target at last (5s)\n"
    "  readahead=                    at most so much (auto; 0 is off)\n"
    "  profile=aws                   the timeouts that AWS Storage Gateway asks for\n"
    "  loglevel=error|warning|info|debug       (info)\n"
    "  weak_secrets                  CHAP secrets below 12 characters, too\n"
    "\n"
    "lunfs(1) and lunfs.conf(5) tell the rest.\n";

static int run_command(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
	    {"mount", cli_mount},
	    {"umount", cli_umount},
	    {"unmount", cli_umount},
	    {"discover", cli_discover},
	    {"import", cli_import},
	    {"check", cli_check},
	    {"status", cli_status},
	    {"top", cli_top},
	    {"rescan", cli_rescan},
	    {"reload", cli_reload},
	};

	if (argc < 2) {
		fputs(usage, stderr);
		return LUNFS_ERROR_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
	    strcmp(argv[1], "help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		puts("lunfs " LUNFS_VERSION);
		return 0;
	}
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(usage, stdout);
			return 0;
		}
	}
	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 2, argv + 2);
	/* The short form: a section has no command's name, and a URL has a colon in it. */
	if (argv[1][0] == '-' || argc > 2 || strchr(argv[1], ':') != NULL)
		return cli_mount(argc - 1, argv + 1);
	return cli_usage("unknown command '%s'", argv[1]);
}

int main(int argc, char **argv)
{
	int status;

	setlocale(LC_CTYPE, "");
	/* A closed one would be the number of a socket or of the pipe, and be written to. */
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return LUNFS_ERROR_FAILED;
	status =
	    argc > 0 && cli_is_helper(argv[0]) ? cli_helper(argc, argv) : run_command(argc, argv);
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fputs("lunfs: the output could not be written\n", stderr);
	return LUNFS_ERROR_FAILED;
}
