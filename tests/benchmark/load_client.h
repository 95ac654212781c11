/* The client side of load.c: frames made in advance, connections, reading replies without copying them. */
#define READ_SIZE (256 * 1024)
#define PORTS_PER_SOURCE 10000 /* then the next loopback address: closed ones never exhaust the ports */

struct connection {
    int fd;
    tls tls;       /* NULL without */
    void *inflate; /* the decompressor, when compression was asked for */
    uint8_t head[14]; /* header of the frame being read */
    int have;         /* bytes of it that are there */
    int in_payload, opcode, fin, closed;
    int compressed, in_message; /* this message is; more of its fragments are to come */
    uint64_t left; /* payload bytes of this frame still to come */
    size_t offset; /* position in the message, over all its fragments, inflated */
    uint64_t wire;   /* its payload bytes as they came */
    uint64_t received_wire, received; /* of whole messages: those bytes, and how many */
    uint8_t control[125];
    size_t control_length;
    uint64_t sent, to_send; /* bytes of data frames: written so far, and still to write */
    int wants_write;
    uint64_t *stamps; /* when each message in flight was sent, a ring */
    uint64_t first, last;
};

static struct options opt;
static uint8_t *payload;              /* what each message contains */
static uint8_t *train;                /* masked frames, ready to be sent: at least as many as are in flight */
static int cars;                      /* how many, before they are repeated */
static size_t *frame_lengths, train_length;
static uint8_t buffer[READ_SIZE];
static int poller = -1;

/* ---- frames -------------------------------------------------------------------------------------------- */

/* Text that is no easier to compress than what programs send: JSON with numbers that do not repeat. */
static void fill_json(uint8_t *out, size_t size) {
    static const char form[] = "{\"id\": %u, \"sensor\": \"room-%02u\", \"value\": %u.%02u, \"ok\": true}, ";
    uint32_t seed = 1;
    char item[128];
    for (size_t at = 0; at < size;) {
        uint32_t a = seed = seed * 1664525u + 1013904223u, b = seed = seed * 1664525u + 1013904223u;
        int n = snprintf(item, sizeof item, form, a >> 12, a >> 4 & 63, b >> 20, b >> 8 & 63);
        for (int i = 0; i < n && at < size; i++)
            out[at++] = (uint8_t)item[i];
    }
}

/* The message that a connection is about to receive. */
static inline const uint8_t *expected(const struct connection *c) {
    return payload + (opt.deflate ? c->received % (uint64_t)cars * opt.size : 0);
}

/* One message again and again; with compression many different ones, lest each be a reference to the one before. */
static void build_train(void) {
    static const char pattern[] = "The quick brown fox jumps over the lazy dog again; 0123456789. ";
    cars = opt.deflate && opt.in_flight < 64 ? 64 : opt.in_flight;
    size_t different = opt.deflate ? opt.size * (size_t)cars : opt.size;
    payload = allocate(different + 1);
    for (size_t i = 0; i < opt.size; i++)
        payload[i] = (uint8_t)pattern[i % (sizeof pattern - 1)];
    if (opt.deflate)
        fill_json(payload, different);
    frame_lengths = allocate(sizeof *frame_lengths * (size_t)cars);
    train = allocate(((14 + opt.size) * (size_t)cars + different) * 2); /* deflate: at worst a little longer */
    uint8_t *out = train;
    for (int n = 0; n < cars; n++) {
        size_t length = opt.size;
        const uint8_t *wire = payload;
        if (opt.deflate)
            wire = deflate_message(payload + (size_t)n * opt.size, opt.size, &length);
        uint8_t *frame = out;
        out += write_header(out, (opt.binary ? 0x82 : 0x81) | (opt.deflate ? 0x40 : 0), length, 1);
        memcpy(out, MASK, 4);
        out += 4;
        for (size_t i = 0; i < length; i++)
            *out++ = wire[i] ^ MASK[i & 3];
        frame_lengths[n] = (size_t)(out - frame);
    }
    train_length = (size_t)(out - train);
    memcpy(out, train, train_length); /* a second one, so that what is in flight always lies in one piece */
}

static void send_control(struct connection *c, int opcode, const uint8_t *data, size_t length) {
    uint8_t frame[6 + 125];
    size_t at = write_header(frame, 0x80 | opcode, length, 1);
    memcpy(frame + at, MASK, 4);
    for (size_t i = 0; i < length; i++)
        frame[at + 4 + i] = data[i] ^ MASK[i & 3];
    /* In the middle of a data frame there is no room for it, nor need: the bytes show we are alive. */
    if (!c->to_send)
        (void)!stream_send(c->fd, c->tls, frame, at + 4 + length, MSG_DONTWAIT);
}

static void start_payload(struct connection *c) {
    c->fin = c->head[0] & 0x80;
    c->opcode = c->head[0] & 0x0f;
    c->left = payload_length(c->head);
    c->have = 0;
    c->in_payload = 1;
    c->control_length = 0;
    int rsv1 = c->head[0] & 0x40;
    if (c->head[0] & 0x30 || c->head[1] & 0x80 || (rsv1 && (!c->inflate || c->opcode & 8 || c->opcode == 0)))
        fail("a frame from the server is masked or has reserved bits set");
    if (c->opcode == 1 || c->opcode == 2)
        c->compressed = rsv1;
    if (c->opcode & 8 ? c->left > 125 : c->opcode != (c->in_message ? 0 : opt.binary ? 2 : 1))
        fail("unexpected opcode %d of %d bytes", c->opcode, (int)c->left);
    if (c->opcode & 8)
        return;
    c->in_message = !c->fin;
    c->wire += c->left;
    if (!c->compressed && c->offset + c->left > opt.size)
        fail("the reply is longer than what was sent");
}

static void finish_control(struct connection *c) {
    if (c->opcode == 9)
        send_control(c, 10, c->control, c->control_length);
    else if (c->opcode == 8)
        c->closed = 1;
}

/* Takes n received bytes; returns how many messages they complete. Every payload byte is compared. */
static int feed(struct connection *c, const uint8_t *data, size_t n) {
    int complete = 0;
    while (n || (c->in_payload && c->left == 0)) {
        if (!c->in_payload) {
            c->head[c->have++] = *data++;
            n--;
            if (c->have >= 2 && c->have == header_length(c->head))
                start_payload(c);
            continue;
        }
        size_t take = n < c->left ? n : (size_t)c->left;
        if (c->opcode & 8) {
            memcpy(c->control + c->control_length, data, take);
            c->control_length += take;
        } else if (c->compressed) {
            c->offset += inflate_compare(c->inflate, data, take, expected(c) + c->offset, opt.size - c->offset);
        } else {
            if (memcmp(expected(c) + c->offset, data, take))
                fail("the reply differs from what was sent");
            c->offset += take;
        }
        data += take, n -= take, c->left -= take;
        if (c->left)
            continue;
        c->in_payload = 0;
        if (c->opcode & 8) {
            finish_control(c);
        } else if (c->fin) {
            if (c->compressed)
                c->offset += inflate_compare(c->inflate, SYNC_TAIL, 4, expected(c) + c->offset, opt.size - c->offset);
            if (c->offset != opt.size)
                fail("the reply is shorter than what was sent");
            c->received_wire += c->wire;
            c->offset = c->wire = 0;
            c->received++;
            complete++;
        }
    }
    return complete;
}

/* ---- connections --------------------------------------------------------------------------------------- */

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
}

static void flush(struct connection *c) {
    while (c->to_send) {
        ssize_t n = stream_send(c->fd, c->tls, train + c->sent % train_length, c->to_send, 0);
        if (n < 0 && !c->tls && errno == EAGAIN)
            break;
        if (n < 0)
            fail("send: %s", strerror(errno));
        c->sent += (uint64_t)n, c->to_send -= (uint64_t)n;
    }
    int wants = c->to_send != 0;
    if (poller >= 0 && wants != c->wants_write) {
        c->wants_write = wants;
        watch(c, EPOLL_CTL_MOD, wants ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static void send_messages(struct connection *c, int count, uint64_t now) {
    for (int i = 0; i < count; i++) {
        c->to_send += frame_lengths[c->last % (uint64_t)cars];
        c->stamps[c->last++ % (uint64_t)opt.in_flight] = now;
    }
    flush(c);
}

/* Reads once; returns the number of messages completed, -1 when nothing was there. */
static int receive(struct connection *c) {
    ssize_t n = stream_recv(c->fd, c->tls, buffer, sizeof buffer);
    if (n < 0 && errno == EAGAIN)
        return -1;
    if (n <= 0)
        fail("the server ended the connection (%s)", n ? strerror(errno) : "end of stream");
    return feed(c, buffer, (size_t)n);
}

/* Connects and upgrades, blocking: how long an opening takes belongs to the handshake mode only. */
static void open_connection(struct connection *c, int small_window) {
    static uint64_t opened;
    uint64_t source = opened++ / PORTS_PER_SOURCE;
    c->fd = dial(opt.port, (uint32_t)source, small_window);
    if (opt.tls && !(c->tls = tls_open(c->fd, 0, NULL)))
        fail("no TLS handshake");
    if (opt.deflate)
        c->inflate = inflate_open();
    static char request[512];
    static int request_length;
    if (!request_length)
        request_length = snprintf(request, sizeof request,
            "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n", opt.path, opt.port, SAMPLE_KEY,
            opt.deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "");
    if (stream_send(c->fd, c->tls, request, (size_t)request_length, 0) != request_length)
        fail("send: %s", strerror(errno));
    size_t have = 0;
    char *end = NULL;
    while (!end) {
        ssize_t n = stream_recv(c->fd, c->tls, buffer + have, 8192 - have);
        if (n <= 0)
            fail("no answer to the opening handshake (%s)", n ? strerror(errno) : "end of stream");
        have += (size_t)n;
        buffer[have] = 0;
        end = strstr((char *)buffer, "\r\n\r\n");
    }
    if (strncmp((char *)buffer, "HTTP/1.1 101", 12) || !strstr((char *)buffer, SAMPLE_ACCEPT))
        fail("refused: %.40s", (char *)buffer);
    if (opt.deflate && !strcasestr((char *)buffer, "permessage-deflate"))
        fail("it does not compress");
    size_t used = (size_t)(end + 4 - (char *)buffer);
    feed(c, buffer + used, have - used);
}

static struct connection *open_all(void) {
    struct connection *all = allocate(sizeof *all * (size_t)opt.connections);
    for (int i = 0; i < opt.connections; i++) {
        all[i].stamps = allocate(sizeof(uint64_t) * (size_t)opt.in_flight);
        open_connection(&all[i], i >= opt.connections - opt.silent);
    }
    return all;
}

/* The silent ones (the last) are left out: nobody will ever read from them. */
static void poll_all(struct connection *all) {
    poller = epoll_create1(0);
    for (int i = 0; i < opt.connections - opt.silent; i++) {
        fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
        watch(&all[i], EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void close_all(struct connection *all) {
    static const uint8_t normal[] = {1000 >> 8, 1000 & 255};
    for (int i = 0; i < opt.connections; i++) {
        if (!opt.abrupt)
            send_control(&all[i], 8, normal, sizeof normal);
        if (all[i].tls && !opt.abrupt)
            tls_close(all[i].tls);
        shutdown(all[i].fd, SHUT_WR);
    }
}
