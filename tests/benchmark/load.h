/* Plumbing of load.c: options, clock, histogram, sockets, frame headers. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SAMPLE_KEY "dGhlIHNhbXBsZSBub25jZQ=="       /* the example of RFC 6455, section 1.3 ... */
#define SAMPLE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" /* ... and the answer it must get */

static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

struct options {
    const char *mode, *path;
    const char *pem; /* serve: certificate and key, then over TLS */
    int port, connections, in_flight, silent, binary, tls, deflate, abrupt;
    int watch; /* the process id of the server, 0: its CPU time is not asked for */
    size_t size;
    double seconds, warmup, patience;
};

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *p = text; *p; p++) /* what a server sent may be quoted in it */
        if (*p == '"' || *p == '\\' || (unsigned char)*p < ' ' || (unsigned char)*p > '~')
            *p = ' ';
    printf("{\"error\": \"%s\"}\n", text);
    fflush(stdout);
    _exit(1);
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size ? size : 1);
    if (!memory)
        fail("out of memory");
    return memory;
}

static void parse_options(struct options *o, int argc, char **argv) {
    if (argc < 2)
        fail("usage: load features|echo|handshake|idle|broadcast|serve --port P [options]; see load.c");
    *o = (struct options){.mode = argv[1], .path = "/ws/", .connections = 1, .in_flight = 1, .size = 100,
                          .seconds = 1.0, .warmup = 0.2, .patience = 5.0};
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i];
        int *flag = !strcmp(name, "--binary") ? &o->binary : !strcmp(name, "--tls") ? &o->tls
                  : !strcmp(name, "--deflate") ? &o->deflate : !strcmp(name, "--abrupt") ? &o->abrupt : NULL;
        if (flag) {
            *flag = 1;
            continue;
        }
        if (++i == argc)
            fail("%s needs a value", name);
        const char *value = argv[i];
        if (!strcmp(name, "--port")) o->port = atoi(value);
        else if (!strcmp(name, "--path")) o->path = value;
        else if (!strcmp(name, "--pem")) o->pem = value;
        else if (!strcmp(name, "--connections")) o->connections = atoi(value);
        else if (!strcmp(name, "--in-flight")) o->in_flight = atoi(value);
        else if (!strcmp(name, "--silent")) o->silent = atoi(value);
        else if (!strcmp(name, "--watch")) o->watch = atoi(value);
        else if (!strcmp(name, "--size")) o->size = (size_t)atoll(value);
        else if (!strcmp(name, "--seconds")) o->seconds = atof(value);
        else if (!strcmp(name, "--warmup")) o->warmup = atof(value);
        else if (!strcmp(name, "--patience")) o->patience = atof(value);
        else fail("unknown option %s", name);
    }
    if (o->connections < 1 || o->in_flight < 1 || o->silent >= o->connections)
        fail("connections and in-flight start at 1, and not all connections can be silent");
    if (o->deflate && !strcmp(o->mode, "broadcast"))
        fail("compression is for echoes");
    if (o->tls && o->connections > 1)
        fail("TLS is for one connection: what is decrypted already does not show in epoll");
}

/* ---- clock, counters ----------------------------------------------------------------------------------- */

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* What another process has used so far, to the nanosecond, with the threads it no longer has; 0 for none. */
static double cpu_seconds_of(int pid) {
    clockid_t clock;
    struct timespec t;
    if (!pid || clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
        return 0.0;
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Nanoseconds in buckets of 1/128 of a power of two: constant memory, less than 1 % error. */
struct histogram {
    uint64_t buckets[58 * 128];
    uint64_t count;
};

static void histogram_add(struct histogram *h, uint64_t value) {
    int shift = value < 128 ? 0 : 56 - __builtin_clzll(value); /* 7 bits are left below the top one */
    h->buckets[shift * 128 + (int)(value >> shift)]++; /* 128..255 for shift > 0: no overlap */
    h->count++;
}

/* The middle of the bucket that holds this fraction of all values; 0 when there are none. */
static double histogram_at(const struct histogram *h, double fraction) {
    uint64_t wanted = (uint64_t)(fraction * (double)h->count), seen = 0;
    if (wanted >= h->count && h->count)
        wanted = h->count - 1;
    for (int i = 0; h->count && i < 58 * 128; i++) {
        seen += h->buckets[i];
        if (seen > wanted) {
            int shift = i < 256 ? 0 : i / 128 - 1;
            return ((double)(i - shift * 128) + 0.5) * (double)(1ull << shift);
        }
    }
    return 0.0;
}

/* ---- sockets ------------------------------------------------------------------------------------------- */

static struct sockaddr_in loopback(uint32_t offset, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + offset);
    return address;
}

/* A connected, blocking socket. source: which of the loopback addresses 127.0.0.1 + n it comes from (each has
 * its own 28,000 ports). small_window: as little as possible is buffered for a connection nobody will read. */
static int dial(int port, uint32_t source, int small_window) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    struct timeval patience = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (small_window) {
        int bytes = 4096, segment = 536; /* small segments keep the send buffer of the peer small, too */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    if (source) {
        struct sockaddr_in from = loopback(source, 0);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&from, sizeof from))
            fail("bind: %s", strerror(errno));
    }
    struct sockaddr_in to = loopback(0, port);
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fail("connect: %s", strerror(errno));
    return fd;
}

/* ---- frame headers (RFC 6455, section 5.2) ------------------------------------------------------------- */

/* Without the mask key, which the caller appends. */
static size_t write_header(uint8_t *out, int first_byte, uint64_t length, int masked) {
    out[0] = (uint8_t)first_byte;
    int bytes = length < 126 ? 0 : length < 65536 ? 2 : 8;
    out[1] = (uint8_t)((bytes == 0 ? (int)length : bytes == 2 ? 126 : 127) | (masked ? 0x80 : 0));
    for (int i = 0; i < bytes; i++)
        out[2 + i] = (uint8_t)(length >> (8 * (bytes - 1 - i)));
    return 2 + (size_t)bytes;
}

/* With the mask key, if there is one. Needs the first two bytes only. */
static int header_length(const uint8_t *head) {
    int code = head[1] & 0x7f;
    return 2 + (code == 126 ? 2 : code == 127 ? 8 : 0) + (head[1] & 0x80 ? 4 : 0);
}

static uint64_t payload_length(const uint8_t *head) {
    uint64_t length = head[1] & 0x7f;
    int bytes = length == 126 ? 2 : length == 127 ? 8 : 0;
    if (bytes)
        length = 0;
    for (int i = 0; i < bytes; i++)
        length = length << 8 | head[2 + i];
    return length;
}
