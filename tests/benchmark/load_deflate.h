/* permessage-deflate (RFC 7692) for load.c, where zlib's headers are.
 *
 * What is sent is compressed once, before the clock runs: a sender need not refer to earlier messages, whatever was
 * agreed. Replies have to be inflated, for a server does refer to them. */
#if __has_include(<zlib.h>) && !defined(WITHOUT_DEFLATE)
#define HAVE_DEFLATE 1
#include <zlib.h>

static const uint8_t SYNC_TAIL[4] = {0, 0, 0xff, 0xff};

static uint8_t *deflate_message(const uint8_t *data, size_t size, size_t *length) {
    z_stream z = {0};
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        fail("deflateInit2");
    size_t room = deflateBound(&z, size) + 64;
    uint8_t *out = allocate(room);
    z.next_in = (uint8_t *)(uintptr_t)data, z.avail_in = (uInt)size;
    z.next_out = out, z.avail_out = (uInt)room;
    if (deflate(&z, Z_SYNC_FLUSH) != Z_OK || z.avail_in)
        fail("deflate");
    *length = room - z.avail_out - sizeof SYNC_TAIL;
    deflateEnd(&z);
    return out;
}

static void *inflate_open(void) {
    z_stream *z = allocate(sizeof *z);
    if (inflateInit2(z, -15) != Z_OK)
        fail("inflateInit2");
    return z;
}

/* Inflates n bytes of a message and compares them with `expected`, `left` bytes; returns how many came out. */
static size_t inflate_compare(void *stream, const uint8_t *data, size_t n, const uint8_t *expected, size_t left) {
    static uint8_t out[1 << 16];
    z_stream *z = stream;
    size_t total = 0;
    z->next_in = (uint8_t *)(uintptr_t)data, z->avail_in = (uInt)n;
    do {
        z->next_out = out, z->avail_out = sizeof out;
        int status = inflate(z, Z_SYNC_FLUSH);
        if (status != Z_OK && status != Z_BUF_ERROR)
            fail("the reply is not deflate data");
        size_t got = sizeof out - z->avail_out;
        if (got > left - total || memcmp(expected + total, out, got))
            fail("the reply, inflated, differs from what was sent");
        total += got;
    } while (z->avail_out == 0);
    return total;
}
#else
#define HAVE_DEFLATE 0
static const uint8_t SYNC_TAIL[4];
static uint8_t *deflate_message(const uint8_t *data, size_t size, size_t *length) {
    fail("compiled without zlib (%d)", (int)(data && size && length));
}
static void *inflate_open(void) { return NULL; }
static size_t inflate_compare(void *stream, const uint8_t *data, size_t n, const uint8_t *expected, size_t left) {
    return stream && data && expected ? n + left : 0;
}
#endif
