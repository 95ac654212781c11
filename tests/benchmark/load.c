/* The neutral load generator of the benchmark: a plain WebSocket client (and echo server) in C.
 *
 *   load echo      --port P [--connections K] [--in-flight N] [--size S] [--binary] [--seconds T] [--warmup W]
 *   load handshake --port P [--seconds T] [--warmup W]          connect, upgrade, close: one after the other
 *   load idle      --port P --connections K                     hold them until stdin ends; "check": all echo
 *   load broadcast --port P --connections K [--silent 1] ...    one message sent, K received, then the next
 *   load serve     [--port P] [--pem FILE]                      echo server, for the measurements of clients
 *   load features                                               what it was compiled with
 *
 * --tls (one connection only), --deflate: over TLS, with permessage-deflate. --abrupt: leave without a Close frame.
 * --watch PID: report what CPU time that process used for one message of the measured window.
 *
 * One JSON object a line on stdout. Exit status 1 with {"error": ...} when the peer misbehaves.
 *
 * Why it is fast enough not to be what is measured: frames are built (and masked) once, before the clock runs,
 * and sent again and again; replies are compared with what was sent while they are skipped over, never copied;
 * one connection is driven with two system calls a message (send, recv), more of them through epoll.
 * Legal shortcuts, which no server can see: one constant mask key and one constant Sec-WebSocket-Key. */
#define _GNU_SOURCE
#include "load.h"
#include "load_tls.h"
#include "load_deflate.h"
#include "load_client.h"
#include "load_serve.h"

static struct histogram latency;

/* ---- modes --------------------------------------------------------------------------------------------- */

struct window {
    uint64_t start, end, count, last;
    double server_cpu; /* what the server had used when the first of them came */
};

static struct window open_window(void) {
    uint64_t start = now_ns() + (uint64_t)(opt.warmup * 1e9);
    return (struct window){.start = start, .end = start + (uint64_t)(opt.seconds * 1e9), .last = start};
}

static void record(struct window *w, uint64_t since, uint64_t now) {
    if (now < w->start)
        return;
    if (!w->count)
        w->server_cpu = cpu_seconds_of(opt.watch);
    w->count++;
    w->last = now;
    histogram_add(&latency, now - since);
}

static double wire_bytes(const struct connection *all) {
    uint64_t bytes = 0, messages = 0;
    for (int i = 0; all && i < opt.connections; i++)
        bytes += all[i].received_wire, messages += all[i].received;
    return messages ? (double)bytes / (double)messages : 0.0;
}

static void report(const struct window *w, const struct connection *all, const char *unit, int stalled) {
    double seconds = (double)(w->last - w->start) / 1e9;
    double server_cpu = opt.watch && w->count > 1
        ? (cpu_seconds_of(opt.watch) - w->server_cpu) / (double)(w->count - 1) : 0.0;
    printf("{\"mode\": \"%s\", \"connections\": %d, \"in_flight\": %d, \"size\": %zu, \"seconds\": %.4f, "
           "\"%s\": %llu, \"per_second\": %.2f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, "
           "\"generator_cpu\": %.3f, \"server_cpu_us\": %.4f, \"wire_bytes\": %.1f, \"stalled\": %s}\n",
           opt.mode, opt.connections, opt.in_flight, opt.size, seconds, unit, (unsigned long long)w->count,
           seconds > 0 ? (double)w->count / seconds : 0.0, histogram_at(&latency, 0.50) / 1e3,
           histogram_at(&latency, 0.99) / 1e3, histogram_at(&latency, 1.0) / 1e3,
           cpu_seconds() / (opt.seconds + opt.warmup), server_cpu * 1e6, wire_bytes(all),
           stalled ? "true" : "false");
    fflush(stdout);
}

/* Takes the replies that came on c, and keeps as many messages in flight as before. */
static int echo_once(struct connection *c, struct window *w, int blocking) {
    int replies = receive(c);
    uint64_t now = now_ns();
    if (replies < 0 && blocking)
        fail("no reply for %.0f s", opt.patience);
    for (int i = 0; i < replies; i++)
        record(w, c->stamps[c->first++ % (uint64_t)opt.in_flight], now);
    if (now >= w->end)
        return 0;
    if (replies > 0)
        send_messages(c, replies, now);
    return 1;
}

static void run_echo(void) {
    struct connection *all = open_all();
    /* A single connection needs no epoll; blocking calls cannot deadlock while all in flight fits the kernel. */
    int blocking = opt.connections == 1 && (opt.in_flight == 1 || train_length <= 65536);
    if (!blocking)
        poll_all(all);
    struct window w = open_window();
    for (int i = 0; i < opt.connections; i++)
        send_messages(&all[i], opt.in_flight, now_ns());
    struct epoll_event events[256];
    for (int going = 1; going;) {
        if (blocking) {
            going = echo_once(&all[0], &w, 1);
            continue;
        }
        int n = epoll_wait(poller, events, 256, (int)(opt.patience * 1e3));
        if (n == 0)
            fail("no reply for %.0f s", opt.patience);
        for (int i = 0; i < n && going; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                flush(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                going = echo_once(c, &w, 0);
        }
    }
    report(&w, all, "messages", 0);
    close_all(all);
}

static void run_handshake(void) {
    static const uint8_t normal[] = {1000 >> 8, 1000 & 255};
    struct window w = open_window();
    for (uint64_t began = now_ns(); began < w.end; began = now_ns()) {
        struct connection c = {0};
        open_connection(&c, 0);
        uint64_t opened = now_ns();
        send_control(&c, 8, normal, sizeof normal);
        while (!c.closed) {
            ssize_t n = stream_recv(c.fd, c.tls, buffer, sizeof buffer);
            if (n <= 0)
                break;
            feed(&c, buffer, (size_t)n);
        }
        if (c.tls)
            tls_free(c.tls);
        free(c.inflate);
        close(c.fd);
        uint64_t now = now_ns();
        record(&w, now - (opened - began), now);
    }
    report(&w, NULL, "handshakes", 0);
}

static int deliveries(struct connection *c) {
    int n = receive(c);
    return n > 0 ? n : 0;
}

/* One message and its reply on each connection, a few at a time: a sign of life, not a storm. Returns how many
 * replied; gives up when nothing comes for as long as the patience. */
static int check_all(struct connection *all) {
    int sent = 0, replies = 0;
    struct epoll_event events[256];
    while (replies < opt.connections) {
        for (; sent < opt.connections && sent - replies < 32; sent++)
            send_messages(&all[sent], 1, 0);
        int n = epoll_wait(poller, events, 256, (int)(opt.patience * 1e3));
        if (n == 0)
            break;
        for (int i = 0; i < n; i++)
            replies += deliveries(events[i].data.ptr);
    }
    return replies;
}

static void run_idle(void) {
    struct connection *all = open_all();
    poll_all(all);
    int alive = check_all(all);
    printf("{\"event\": \"held\", \"connections\": %d, \"alive\": %d}\n", opt.connections, alive);
    fflush(stdout);
    struct connection commands = {.fd = STDIN_FILENO};
    struct epoll_event event;
    char line[64];
    watch(&commands, EPOLL_CTL_ADD, EPOLLIN);
    while (epoll_wait(poller, &event, 1, -1) >= 0) {
        if (event.data.ptr != &commands) {
            receive(event.data.ptr); /* a Ping: answered */
            continue;
        }
        if (read(STDIN_FILENO, line, sizeof line) <= 0)
            break;
        watch(&commands, EPOLL_CTL_MOD, 0);
        alive = check_all(all);
        watch(&commands, EPOLL_CTL_MOD, EPOLLIN);
        printf("{\"event\": \"checked\", \"connections\": %d, \"alive\": %d}\n", opt.connections, alive);
        fflush(stdout);
    }
    close_all(all);
}

/* One message from the first connection; waits until `readers` have it, or none more comes within the patience
 * (seconds). Returns how many still miss it. */
static int broadcast_once(struct connection *sender, int readers, uint64_t now, double patience) {
    struct epoll_event events[512];
    send_messages(sender, 1, now);
    while (readers > 0) {
        int n = epoll_wait(poller, events, 512, (int)(patience * 1e3));
        if (n == 0)
            break;
        for (int i = 0; i < n; i++)
            readers -= deliveries(events[i].data.ptr);
    }
    return readers;
}

static void run_broadcast(void) {
    struct connection *all = open_all();
    poll_all(all);
    int readers = opt.connections - opt.silent, missing = 1;
    /* A server may answer the handshake a moment before it counts the connection in: wait until it does. */
    for (int i = 0; i < 20 && missing; i++)
        missing = broadcast_once(&all[0], readers, 0, 0.25);
    struct window w = open_window();
    for (uint64_t began = now_ns(); began < w.end && !missing; began = now_ns()) {
        missing = broadcast_once(&all[0], readers, began, opt.patience);
        if (!missing)
            record(&w, began, now_ns());
    }
    report(&w, all, "broadcasts", missing != 0);
    close_all(all);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    parse_options(&opt, argc, argv);
    raise_file_limit();
    if (!strcmp(opt.mode, "features")) {
        printf("{\"tls\": %s, \"deflate\": %s}\n", HAVE_TLS ? "true" : "false", HAVE_DEFLATE ? "true" : "false");
        return 0;
    }
    if (!strcmp(opt.mode, "serve"))
        return serve(opt.port);
    build_train();
    if (!strcmp(opt.mode, "echo"))
        run_echo();
    else if (!strcmp(opt.mode, "handshake"))
        run_handshake();
    else if (!strcmp(opt.mode, "idle"))
        run_idle();
    else if (!strcmp(opt.mode, "broadcast"))
        run_broadcast();
    else
        fail("unknown mode %s", opt.mode);
    return 0;
}
