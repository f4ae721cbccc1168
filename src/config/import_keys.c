/*
 * import_keys.c - the keys of open-iscsi (usr/idbm.c, etc/iscsid.conf), up to version 2.1.11: what
 * they are by default, and why lunfs has no use for them.
 */
#include <string.h>

#include "import.h"

static const char one_session[] = "lunfs keeps one session with one connection a target";
static const char libiscsi_decides[] = "libiscsi negotiates its own";
static const char own_recovery[] =
    "lunfs does not abort commands: after command_timeout it logs in again";
static const char retries_for_ever[] =
    "lunfs tries again for as long as it is mounted; login_timeout limits one attempt";
static const char kernels_tcp[] = "lunfs leaves TCP to the kernel: see tcp(7)";
static const char kernels_routes[] = "lunfs connects as the kernel routes: see ip-route(8)";
static const char offload[] = "of an offload card, which lunfs does not use";
static const char discovery_daemon[] = "there is no daemon: 'lunfs discover' asks when it is run";
static const char iscsids_own[] = "of iscsid, which lunfs does not need";

static const struct key {
	const char *name; /* a last '*' stands for any rest */
	const char *
	    defaults; /* that have been shipped, by '|'; NULL: it says nothing that would be lost */
	const char *reason;
} keys[] = {
    /* carried over, or told in a comment of its own (import.c) */
    {IMPORT_NAME, NULL, NULL},
    {IMPORT_ADDRESS, NULL, NULL},
    {IMPORT_PORT, NULL, NULL},
    {IMPORT_STARTUP, NULL, NULL},
    {IMPORT_INITIATOR_NAME, NULL, NULL},
    {IMPORT_AUTH_METHOD, NULL, NULL},
    {IMPORT_USERNAME, NULL, NULL},
    {IMPORT_PASSWORD, NULL, NULL},
    {IMPORT_USERNAME_IN, NULL, NULL},
    {IMPORT_PASSWORD_IN, NULL, NULL},
    {IMPORT_REPLACEMENT_TIMEOUT, NULL, NULL},
    {IMPORT_LOGIN_TIMEOUT, NULL, NULL},
    {IMPORT_NOOP_INTERVAL, NULL, NULL},
    {IMPORT_NOOP_TIMEOUT, NULL, NULL},
    {IMPORT_HEADER_DIGEST, NULL, NULL},
    {"discovery.sendtargets.auth.username", NULL, NULL},
    {"discovery.sendtargets.auth.password", NULL, NULL},
    {"discovery.sendtargets.auth.username_in", NULL, NULL},
    {"discovery.sendtargets.auth.password_in", NULL, NULL},

    /* which portal it is, and how it was found */
    {"node.tpgt", NULL, NULL},
    {"node.discovery_address", NULL, NULL},
    {"node.discovery_port", NULL, NULL},
    {"node.discovery_type", NULL, NULL},
    {"node.transport_name", "tcp", offload},
    {"node.active_conn", "1", one_session},
    {"iface.iscsi_ifacename", NULL, NULL},
    {"iface.transport_name", "tcp|default", offload},

    {"node.leading_login", "No", one_session},
    {"node.boot_lun", NULL, NULL},
    {"node.session.initial_cmdsn", "0", libiscsi_decides},
    {"node.session.initial_login_retry_max", "4|8", retries_for_ever},
    {"node.session.xmit_thread_priority", "-20|0",
        "lunfs has no thread of the kernel: see nice(1)"},
    {"node.session.cmds_max", "128", "lunfs keeps as many commands at work as the target lets it"},
    {"node.session.queue_depth", "32",
        "lunfs keeps as many commands at work as the target lets it"},
    {"node.session.nr_sessions", "1", one_session},
    {"node.session.multiple", "No", one_session},
    {"node.session.auth.chap_algs", "MD5", "lunfs answers with MD5, which every target knows"},
    {"node.session.err_timeo.abort_timeout", "10|15", own_recovery},
    {"node.session.err_timeo.lu_reset_timeout", "20|30", own_recovery},
    {"node.session.err_timeo.tgt_reset_timeout", "20|30", own_recovery},
    {"node.session.err_timeo.host_reset_timeout", "60", own_recovery},
    {"node.session.err_timeo.reset_timeout", "30", own_recovery},
    {"node.session.iscsi.FastAbort", "Yes", own_recovery},
    {"node.session.iscsi.InitialR2T", "No", libiscsi_decides},
    {"node.session.iscsi.ImmediateData", "Yes", libiscsi_decides},
    {"node.session.iscsi.FirstBurstLength", "262144", libiscsi_decides},
    {"node.session.iscsi.MaxBurstLength", "16776192", libiscsi_decides},
    {"node.session.iscsi.DefaultTime2Retain", "0", libiscsi_decides},
    {"node.session.iscsi.DefaultTime2Wait", "0|2", libiscsi_decides},
    {"node.session.iscsi.MaxConnections", "1", one_session},
    {"node.session.iscsi.MaxOutstandingR2T", "1", libiscsi_decides},
    {"node.session.iscsi.ERL", "0", libiscsi_decides},
    {"node.session.scan", "auto",
        "lunfs shows every LUN: name those that it shall show with luns="},
    {"node.session.reopen_max", "0|32", retries_for_ever},
    {"node.session.sess_reopen_log_freq", "1", "lunfs logs an outage once"},

    {"node.conn[0].startup", "manual|automatic|onboot", one_session},
    {"node.conn[0].tcp.window_size", "524288", kernels_tcp},
    {"node.conn[0].tcp.type_of_service", "0", kernels_tcp},
    {"node.conn[0].tcp.congestion_control", "", kernels_tcp},
    {"node.conn[0].timeo.logout_timeout", "15", "'lunfs umount' waits until all is written"},
    {"node.conn[0].timeo.auth_timeout", "45", "login_timeout limits it, too"},
    {"node.conn[0].timeo.active_timeout", "5|30", own_recovery},
    {"node.conn[0].timeo.idle_timeout", "60", own_recovery},
    {"node.conn[0].timeo.ping_timeout", "5", own_recovery},
    {"node.conn[0].iscsi.MaxXmitDataSegmentLength", "0", libiscsi_decides},
    {"node.conn[0].iscsi.MaxRecvDataSegmentLength", "262144|131072", libiscsi_decides},
    {"node.conn[0].iscsi.DataDigest", "None|None,CRC32C",
        "libiscsi has none: header_digest=crc32c guards the headers"},
    {"node.conn[0].iscsi.IFMarker", "No", libiscsi_decides},
    {"node.conn[0].iscsi.OFMarker", "No", libiscsi_decides},
    {"node.conn[*", "", one_session},

    {"iface.net_ifacename", "default", kernels_routes},
    {"iface.hwaddress", "default", kernels_routes},
    {"iface.ipaddress", "default", kernels_routes},
    {"iface.subnet_mask", "", kernels_routes},
    {"iface.gateway", "", kernels_routes},
    {"iface.*", "0|", offload},

    {"discovery.startup", "manual", discovery_daemon},
    {"discovery.type", NULL, NULL},
    {"discovery.sendtargets.address", NULL, NULL},
    {"discovery.sendtargets.port", NULL, NULL},
    {"discovery.sendtargets.auth.authmethod", NULL, NULL},
    {"discovery.sendtargets.auth.chap_algs", "MD5",
        "lunfs answers with MD5, which every target knows"},
    {"discovery.sendtargets.timeo.login_timeout", "15|30",
        "'lunfs discover' takes -o login_timeout="},
    {"discovery.sendtargets.timeo.auth_timeout", "45", "login_timeout limits it, too"},
    {"discovery.sendtargets.timeo.active_timeout", "30", "login_timeout limits it, too"},
    {"discovery.sendtargets.reopen_max", "5", "'lunfs discover' asks once"},
    {"discovery.sendtargets.use_discoveryd", "No", discovery_daemon},
    {"discovery.sendtargets.discoveryd_poll_inval", "30", discovery_daemon},
    {"discovery.sendtargets.iscsi.MaxRecvDataSegmentLength", "32768", libiscsi_decides},
    {"discovery.isns.*", "", "lunfs does not ask iSNS servers"},
    {"discovery.daemon.*", "", discovery_daemon},
    {"isns.*", "", "lunfs does not ask iSNS servers"},
    {"iscsid.startup", NULL, NULL},
    {"iscsid.safe_logout", "No", "'lunfs umount' writes all out first"},
    {"iscsid.*", "Yes", iscsids_own},
    {"InitiatorAlias", "", "targets use it for display only"},
};

static bool key_matches(const struct key *key, const char *name)
{
	size_t length = strlen(key->name);

	if (key->name[length - 1] == '*')
		return strncmp(key->name, name, length - 1) == 0;
	return strcmp(key->name, name) == 0;
}

static bool is_one_of(const char *value, const char *list)
{
	g_auto(GStrv) words = g_strsplit(list, "|", -1);

	return g_strv_contains((const char *const *)words, value);
}

const char *import_key_reason(const char *key, const char *value)
{
	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
		if (!key_matches(&keys[i], key))
			continue;
		if (keys[i].defaults == NULL || is_one_of(value, keys[i].defaults))
			return NULL;
		return keys[i].reason;
	}
	return "no equivalent";
}

bool import_key_names_portal(const char *key)
{
	static const char *const names[] = {IMPORT_NAME, IMPORT_ADDRESS, IMPORT_PORT, "node.tpgt",
	    "node.discovery_address", "node.discovery_port", "node.discovery_type",
	    "iface.iscsi_ifacename", NULL};

	return g_strv_contains(names, key);
}

bool import_key_is_secret(const char *key)
{
	return strstr(key, "password") != NULL;
}
