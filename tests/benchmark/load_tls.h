/* TLS for load.c, where OpenSSL's headers are: blocking, a context for each side.
 *
 * So that the generator costs as little as it can: what one message encrypts to leaves with one system call (a
 * buffer before the socket), and what has arrived is read with one (read ahead). Everybody is to do the same work,
 * so anything but TLS 1.3 with AES-256-GCM is refused. */
#if __has_include(<openssl/ssl.h>) && !defined(WITHOUT_TLS)
#define HAVE_TLS 1
#include <openssl/err.h>
#include <openssl/ssl.h>

#define TLS_BUFFER (1 << 18)

typedef SSL *tls;

static SSL_CTX *tls_context(int server, const char *pem) {
    SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (!context)
        fail("SSL_CTX_new");
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, TLS_BUFFER);
    if (server && (SSL_CTX_use_certificate_chain_file(context, pem) != 1 ||
                   SSL_CTX_use_PrivateKey_file(context, pem, SSL_FILETYPE_PEM) != 1))
        fail("no certificate and key in %s", pem);
    return context;
}

static tls tls_open(int fd, int server, const char *pem) {
    static SSL_CTX *context;
    if (!context)
        context = tls_context(server, pem);
    SSL *ssl = SSL_new(context);
    BIO *out = BIO_new(BIO_f_buffer());
    BIO_set_write_buffer_size(out, TLS_BUFFER);
    SSL_set_bio(ssl, BIO_new_socket(fd, BIO_NOCLOSE), BIO_push(out, BIO_new_socket(fd, BIO_NOCLOSE)));
    if ((server ? SSL_accept(ssl) : SSL_connect(ssl)) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    const char *cipher = SSL_get_cipher_name(ssl);
    if (!server && strcmp(cipher, "TLS_AES_256_GCM_SHA384"))
        fail("TLS with %s: it is not what the others use", cipher);
    return ssl;
}

static ssize_t tls_recv(tls ssl, void *room, size_t size) {
    int n = SSL_read(ssl, room, (int)size);
    return n > 0 ? n : SSL_get_error(ssl, n) == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t tls_send(tls ssl, const void *data, size_t size) {
    int n = SSL_write(ssl, data, (int)size);
    return n > 0 && BIO_flush(SSL_get_wbio(ssl)) == 1 ? n : -1;
}

static void tls_close(tls ssl) {
    SSL_shutdown(ssl);
    (void)BIO_flush(SSL_get_wbio(ssl));
}

static void tls_free(tls ssl) {
    SSL_free(ssl);
}
#else
#define HAVE_TLS 0
typedef void *tls;
static tls tls_open(int fd, int server, const char *pem) {
    fail("compiled without TLS (%d %d)", fd, server && pem);
}
static ssize_t tls_recv(tls ssl, void *room, size_t size) { return ssl && room ? -(ssize_t)size : -1; }
static ssize_t tls_send(tls ssl, const void *data, size_t size) { return ssl && data ? -(ssize_t)size : -1; }
static void tls_close(tls ssl) { (void)ssl; }
static void tls_free(tls ssl) { (void)ssl; }
#endif

/* A connected socket with or without TLS. */
static ssize_t stream_recv(int fd, tls ssl, void *room, size_t size) {
    return ssl ? tls_recv(ssl, room, size) : recv(fd, room, size, 0);
}

static ssize_t stream_send(int fd, tls ssl, const void *data, size_t size, int flags) {
    return ssl ? tls_send(ssl, data, size) : send(fd, data, size, MSG_NOSIGNAL | flags);
}
