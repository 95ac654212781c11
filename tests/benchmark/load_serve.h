/* The echo server of load.c, for the measurements of clients: one thread per connection, blocking calls.
 * Each frame is answered by one send; it is unmasked and turned into its own reply in place. */

static uint32_t rotate(uint32_t x, int n) {
    return x << n | x >> (32 - n);
}

static uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void sha1(const char *text, uint8_t digest[20]) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}, w[80];
    size_t length = strlen(text), total = (length + 8) / 64 * 64 + 64;
    uint8_t *padded = allocate(total);
    memcpy(padded, text, length);
    padded[length] = 0x80;
    for (int i = 0; i < 8; i++)
        padded[total - 1 - (size_t)i] = (uint8_t)((uint64_t)length * 8 >> (8 * i));
    for (size_t at = 0; at < total; at += 64) {
        for (int i = 0; i < 16; i++)
            w[i] = big_endian(padded + at + 4 * (size_t)i);
        for (int i = 16; i < 80; i++)
            w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? ((b & c) | (~b & d)) + 0x5a827999 : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                       : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc : (b ^ c ^ d) + 0xca62c1d6;
            uint32_t next = rotate(a, 5) + f + e + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    free(padded);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* Sec-WebSocket-Accept for a key (RFC 6455, section 4.2.2): 28 characters and the end of the string. */
static void accept_value(const char *key, char out[29]) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[96];
    uint8_t digest[21] = {0};
    snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    sha1(text, digest);
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int j = 0; j < 4; j++)
            out[4 * i + j] = digits[three >> (18 - 6 * j) & 63];
    }
    out[27] = '='; /* 20 bytes: the last group of three lacks one */
    out[28] = 0;
}

static int send_all(int fd, tls ssl, const uint8_t *data, size_t length) {
    while (length) {
        ssize_t n = stream_send(fd, ssl, data, length, 0);
        if (n <= 0)
            return 0;
        data += n, length -= (size_t)n;
    }
    return 1;
}

static int upgrade(int fd, tls ssl) {
    char request[8192], accepted[29], answer[256];
    size_t have = 0;
    do {
        ssize_t n = stream_recv(fd, ssl, request + have, sizeof request - 1 - have);
        if (n <= 0)
            return 0;
        have += (size_t)n;
        request[have] = 0;
    } while (!strstr(request, "\r\n\r\n"));
    char *key = strcasestr(request, "sec-websocket-key:");
    if (!key)
        return 0;
    key += strlen("sec-websocket-key:");
    accept_value(key + strspn(key, " "), accepted);
    int length = snprintf(answer, sizeof answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accepted);
    return send_all(fd, ssl, (uint8_t *)answer, (size_t)length);
}

/* Eight bytes at a time, which the compiler turns into more. */
static void unmask(uint8_t *data, size_t length, const uint8_t *key) {
    uint64_t wide, word;
    memcpy(&wide, key, 4);
    memcpy((uint8_t *)&wide + 4, key, 4);
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        memcpy(&word, data + at, 8);
        word ^= wide;
        memcpy(data + at, &word, 8);
    }
    for (; at < length; at++)
        data[at] ^= ((uint8_t *)&wide)[at & 7];
}

/* Answers the complete frame at `frame`; 0 when the conversation is over. The reply has no mask key, so its
 * header fits exactly where the header of the frame ended. */
static int answer(int fd, tls ssl, uint8_t *frame, size_t header, size_t length) {
    int opcode = frame[0] & 0x0f, first = opcode == 9 ? 0x8a : frame[0];
    uint8_t *data = frame + header;
    unmask(data, length, data - 4);
    if (opcode == 10)
        return 1;
    uint8_t *reply = data - (header - 4);
    write_header(reply, first, length, 0);
    return send_all(fd, ssl, reply, header - 4 + length) && opcode != 8;
}

static void converse(int fd, tls ssl) {
    size_t capacity = 1 << 16, have = 0;
    uint8_t *data = allocate(capacity);
    for (int going = 1; going;) {
        ssize_t n = stream_recv(fd, ssl, data + have, capacity - have);
        if (n <= 0)
            break;
        have += (size_t)n;
        size_t at = 0;
        while (going && have - at >= 2 && have - at >= (size_t)header_length(data + at)) {
            size_t header = (size_t)header_length(data + at), length = (size_t)payload_length(data + at);
            if (header + length > capacity && length < 1u << 28) {
                capacity = header + length + (1 << 16);
                if (!(data = realloc(data, capacity)))
                    fail("out of memory");
            }
            if (have - at < header + length)
                break;
            going = data[at + 1] & 0x80 ? answer(fd, ssl, data + at, header, length) : 0;
            at += header + length;
        }
        memmove(data, data + at, have -= at);
    }
    free(data);
}

static void *serve_one(void *argument) {
    int fd = (int)(intptr_t)argument, on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    tls ssl = opt.pem ? tls_open(fd, 1, opt.pem) : NULL;
    if ((ssl || !opt.pem) && upgrade(fd, ssl))
        converse(fd, ssl);
    if (ssl)
        tls_free(ssl);
    close(fd);
    return NULL;
}

/* Leaves with whoever started us: nothing is left behind when that process is killed. */
static void *leave_with_stdin(void *unused) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    _exit(0);
    return unused;
}

static int serve(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = loopback(0, port);
    socklen_t size = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 128))
        fail("bind: %s", strerror(errno));
    getsockname(listener, (struct sockaddr *)&address, &size);
    pthread_t thread;
    pthread_create(&thread, NULL, leave_with_stdin, NULL);
    printf("READY %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0 && pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)fd) == 0)
            pthread_detach(thread);
    }
}
