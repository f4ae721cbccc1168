/*
 * digest.h - header digests: CRC32C over a Basic Header Segment (RFC 7143, 11.2.3 and 13.1).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define HEADER_LENGTH 48u
#define DIGEST_LENGTH 4u

/* pdu: the header, and room for the digest behind it. */
void digest_put(uint8_t *pdu);
/* Is the digest behind the header the header's? */
bool digest_is_right(const uint8_t *pdu);
