/*
 * isid.h - the initiator's part of each session's name (RFC 7143, 11.12.5). Private to the room.
 *
 * The same mount of the same target gets the same ISID each time, so that after a restart it takes
 * its own session over, with all that is still alive in it; mounts that live at the same time get
 * different ones (SAFETY.md 11).
 */
#pragma once

#include <stdint.h>

struct isid;

/*
 * Claims the ISIDs of a mount at mountpoint (absolute) until isid_free(): they follow from this
 * machine, its network namespace, the user and the mountpoint. Where another process has claimed
 * the same ones they are random.
 */
struct isid *isid_claim(const char *mountpoint);
void isid_free(struct isid *isid);
/* For the session of the target that has this name in the mount: 24 bits, and 16. */
uint32_t isid_random(const struct isid *isid, const char *target);
uint16_t isid_qualifier(const struct isid *isid, const char *target);
