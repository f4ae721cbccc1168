/*
 * script_digest.c - CRC32C, bit by bit (RFC 7143, 13.1 and appendix A.4).
 */
#include "support/script_internal.h"

void digest_of(const uint8_t *bytes, size_t length, uint8_t digest[4])
{
	uint32_t crc = 0xffffffff;

	for (size_t i = 0; i < length; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	crc = ~crc;
	for (int i = 0; i < 4; i++)
		digest[i] = (uint8_t)(crc >> 8 * i);
}
