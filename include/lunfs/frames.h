/*
 * frames.h - the memory of what is cached and kept: frames of 4 KiB that several may hold at once.
 *
 * A frame is filled once, by whoever got it, and not changed while anybody else holds it: so the
 * data of a WRITE goes from /dev/fuse to the target, into the cache and into what is kept for a
 * target that forgets, without being copied. Who may change a page that others hold takes another
 * frame first.
 *
 * Of a frame there are two kinds of holders. Requests hold what they carry for as long as they
 * last: those frames are counted apart (SAFETY.md 19). The cache and retain keep: what is kept by
 * at least one of them counts, once, against the limit. A frame is free when nobody holds or keeps
 * it.
 *
 * All frames lie in one region of address space, so that any pointer tells whether it points to
 * one. Memory is taken as frames are used. Not for use by two threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_SIZE 4096u

struct frames;

/*
 * limit: bytes that may be kept; apart: room beside it, for requests and for what frames_may_keep()
 * lets pass. Both are rounded up to 256 KiB. NULL without address space.
 */
struct frames *frames_new(size_t limit, size_t apart);
void frames_free(struct frames *frames);

/*
 * A run of 1 to max frames that are neighbours in memory, held once each; their content is
 * undefined. Long runs are preferred where max is large, and low addresses always, so that warm
 * memory is used again. Returns how many; 0 where none is free.
 */
unsigned frames_get(struct frames *frames, unsigned max, uint8_t **run);
bool frames_contain(const struct frames *frames, const void *at);

/* These four are of every frame that [at, at + length) touches; all are in the region and not free.
 */
void frames_hold(struct frames *frames, const void *at, size_t length);
void frames_release(struct frames *frames, const void *at, size_t length);
void frames_keep(struct frames *frames, const void *at, size_t length);
void frames_let_go(struct frames *frames, const void *at, size_t length);

/* Holders and keepers of the frame that at lies in. */
unsigned frame_users(const struct frames *frames, const void *at);
unsigned frame_keepers(const struct frames *frames, const void *at);

/* Bytes kept by anybody, and bytes in use: kept, held or both. */
size_t frames_kept(const struct frames *frames);
size_t frames_in_use(const struct frames *frames);
size_t frames_limit(const struct frames *frames);

/*
 * May so many bytes more be kept? Where the limit is reached, reclaim(bytes, data) is asked first
 * to let go of so much. Advice: keeping is never refused.
 */
bool frames_may_keep(struct frames *frames, size_t bytes);
void frames_on_reclaim(
    struct frames *frames, void (*reclaim)(size_t bytes, void *data), void *data);

/*
 * The next frames_let_go() calls room(data), once: for who was refused. It may not use the frames
 * itself, only defer what does.
 */
void frames_await(struct frames *frames, void (*room)(void *data), void *data);

/* Returns free memory to the system if nothing was taken since the last call. */
void frames_trim(struct frames *frames);
