/*
 * sha256.h - the SHA-256 digest (FIPS 180-4), by which weights files are told apart: a score's fingerprint names
 * the network's weights by it.
 */
#ifndef SAG_SHA256_H
#define SAG_SHA256_H

#include "engine/sagan.h"

#define SAG_SHA256_HEX 65 /* 64 lower-case digits and a zero byte */

void sag_sha256(const void *bytes, size_t size, char hex[SAG_SHA256_HEX]);
sag_status sag_sha256_file(const char *path, char hex[SAG_SHA256_HEX]);

#endif
