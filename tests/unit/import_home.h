/*
 * import_home.h - open-iscsi's files in a directory of the test's own.
 */
#pragma once

#include "lunfs/config.h"
#include "lunfs/import.h"

#include <criterion/criterion.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The root of a system: etc/iscsi and var/lib/iscsi are made in it as files are written. */
struct import_home {
	char *root;
	GPtrArray *troubles;
};

static inline struct import_home import_home_new(void)
{
	struct import_home home = {.root = g_dir_make_tmp("lunfs-test-XXXXXX", NULL),
	    .troubles = g_ptr_array_new_with_free_func(g_free)};

	cr_assert_not_null(home.root);
	return home;
}

static inline void import_home_remove(const char *path)
{
	GDir *directory =
	    g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);

	for (const char *name; directory && (name = g_dir_read_name(directory));) {
		g_autofree char *below = g_build_filename(path, name, NULL);
		import_home_remove(below);
	}
	if (directory)
		g_dir_close(directory);
	g_remove(path);
}

static inline void import_home_free(struct import_home *home)
{
	import_home_remove(home->root);
	g_free(home->root);
	g_ptr_array_unref(home->troubles);
}

/* Writes a file below the root; its directories are made. */
static inline void import_home_write(
    const struct import_home *home, const char *name, const char *text)
{
	g_autofree char *path = g_build_filename(home->root, name, NULL);
	g_autofree char *directory = g_path_get_dirname(path);

	cr_assert_eq(g_mkdir_with_parents(directory, 0700), 0);
	cr_assert(g_file_set_contents(path, text, -1, NULL));
}

/* The record of a node as iscsiadm 2.1.8 writes it, with more lines (which come last and so count).
 */
static inline char *import_record_text(
    const char *iqn, const char *host, unsigned port, const char *more)
{
	return g_strdup_printf("# BEGIN RECORD 2.1.8\n"
	                       "node.name = %s\n"
	                       "node.tpgt = 1\n"
	                       "node.startup = automatic\n"
	                       "node.leading_login = No\n"
	                       "iface.iscsi_ifacename = default\n"
	                       "iface.prefix_len = 0\n"
	                       "iface.transport_name = tcp\n"
	                       "iface.vlan_id = 0\n"
	                       "iface.mtu = 0\n"
	                       "iface.erl = 0\n"
	                       "node.discovery_address = %s\n"
	                       "node.discovery_port = %u\n"
	                       "node.discovery_type = send_targets\n"
	                       "node.session.initial_cmdsn = 0\n"
	                       "node.session.initial_login_retry_max = 8\n"
	                       "node.session.xmit_thread_priority = -20\n"
	                       "node.session.cmds_max = 128\n"
	                       "node.session.queue_depth = 32\n"
	                       "node.session.nr_sessions = 1\n"
	                       "node.session.auth.authmethod = None\n"
	                       "node.session.auth.chap_algs = MD5\n"
	                       "node.session.timeo.replacement_timeout = 120\n"
	                       "node.session.err_timeo.abort_timeout = 15\n"
	                       "node.session.err_timeo.lu_reset_timeout = 30\n"
	                       "node.session.err_timeo.tgt_reset_timeout = 30\n"
	                       "node.session.err_timeo.host_reset_timeout = 60\n"
	                       "node.session.iscsi.FastAbort = Yes\n"
	                       "node.session.iscsi.InitialR2T = No\n"
	                       "node.session.iscsi.ImmediateData = Yes\n"
	                       "node.session.iscsi.FirstBurstLength = 262144\n"
	                       "node.session.iscsi.MaxBurstLength = 16776192\n"
	                       "node.session.iscsi.DefaultTime2Retain = 0\n"
	                       "node.session.iscsi.DefaultTime2Wait = 2\n"
	                       "node.session.iscsi.MaxConnections = 1\n"
	                       "node.session.iscsi.MaxOutstandingR2T = 1\n"
	                       "node.session.iscsi.ERL = 0\n"
	                       "node.session.scan = auto\n"
	                       "node.session.reopen_max = 0\n"
	                       "node.conn[0].address = %s\n"
	                       "node.conn[0].port = %u\n"
	                       "node.conn[0].startup = manual\n"
	                       "node.conn[0].tcp.window_size = 524288\n"
	                       "node.conn[0].tcp.type_of_service = 0\n"
	                       "node.conn[0].timeo.logout_timeout = 15\n"
	                       "node.conn[0].timeo.login_timeout = 15\n"
	                       "node.conn[0].timeo.auth_timeout = 45\n"
	                       "node.conn[0].timeo.noop_out_interval = 5\n"
	                       "node.conn[0].timeo.noop_out_timeout = 5\n"
	                       "node.conn[0].iscsi.MaxXmitDataSegmentLength = 0\n"
	                       "node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144\n"
	                       "node.conn[0].iscsi.HeaderDigest = None\n"
	                       "node.conn[0].iscsi.DataDigest = None\n"
	                       "node.conn[0].iscsi.IFMarker = No\n"
	                       "node.conn[0].iscsi.OFMarker = No\n"
	                       "%s"
	                       "# END RECORD\n",
	    iqn, host, port, host, port, more);
}

/* nodes/IQN/HOST,PORT,1/default below etc/iscsi, as Debian has it. */
static inline void import_home_node(const struct import_home *home, const char *iqn,
    const char *host, unsigned port, const char *more)
{
	g_autofree char *text = import_record_text(iqn, host, port, more);
	g_autofree char *name =
	    g_strdup_printf("etc/iscsi/nodes/%s/%s,%u,1/default", iqn, host, port);

	import_home_write(home, name, text);
}

/* The text that is imported from a path below the root; it must be something. */
static inline char *import_home_read(const struct import_home *home, const char *name)
{
	g_autofree char *path = g_build_filename(home->root, name, NULL);
	GError *error = NULL;
	struct import *import = import_open_iscsi(path, home->troubles, &error);

	cr_assert_not_null(import, "%s", error ? error->message : "");
	char *text = g_strdup(import->text);
	import_free(import);
	return text;
}

/* The same as a configuration, which must be without fault. */
static inline struct config *import_home_config(
    const struct import_home *home, const char *name, char **text)
{
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	g_autofree char *imported = import_home_read(home, name);
	g_autofree char *path = g_build_filename(home->root, "lunfs.conf", NULL);
	const char *files[] = {path, NULL};

	cr_assert(
	    g_file_set_contents_full(path, imported, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
	struct config *config = config_read(files, faults);
	for (unsigned i = 0; i < faults->len; i++)
		cr_log_error("%s", config_fault_describe(g_ptr_array_index(faults, i)));
	cr_assert(config != NULL && faults->len == 0, "what was imported is faulty:\n%s", imported);
	if (text)
		*text = g_steal_pointer(&imported);
	return config;
}
