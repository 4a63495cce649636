#include "decode/serve/http/tls.h"

#include "base/files/file.h"

#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// A server asks nobody at a terminal.
static int no_passphrase(char *buf, int size, int writes, void *ctx) {
    (void)buf, (void)size, (void)writes;
    *(bool *)ctx = true;
    return -1;
}

static sd_status read_key(EVP_PKEY **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    int fd = -1;
    size_t size;
    struct stat s;
    FILE *f = NULL;
    bool asked = false;
    SD_TRY(sd_open_regular(&fd, &size, path, err));
    SD_CHECK(fstat(fd, &s) == 0, err, SD_EIO, "%s: %s", path, strerror(errno));
    SD_CHECK((s.st_mode & S_IRWXO) == 0, err, SD_EINVAL,
             "%s: a key that others can open (mode %04o) is no secret; chmod o-rwx it, or make a "
             "new one",
             path, (unsigned)s.st_mode & 07777);
    f = fdopen(fd, "r");
    SD_CHECK(f, err, SD_EIO, "%s: %s", path, strerror(errno));
    fd = -1;
    *out = PEM_read_PrivateKey(f, NULL, no_passphrase, &asked);
    SD_CHECK(!asked, err, SD_EINVAL,
             "%s: the key has a passphrase, which nobody can give a server; give a key without",
             path);
    SD_CHECK(*out, err, SD_EINVAL, "%s: is no private key in PEM; give one", path);
out:
    if (f) fclose(f);
    if (fd >= 0) close(fd);
    return st;
}

// HTTP/1.1 is all that is spoken here, also with a client that would rather speak another.
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *len,
                           const unsigned char *offered, unsigned n, void *ctx) {
    static const unsigned char own[] = "\x08http/1.1";
    (void)ssl, (void)ctx;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, len, own, sizeof own - 1, offered, n) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

sd_status sd_tls_open(sd_tls **out, const char *cert, const char *key, sd_error *err) {
    sd_status st = SD_OK;
    SSL_CTX *t = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *pkey = NULL;
    int fd = -1;
    size_t size;
    SD_CHECK_ALLOC(t, err);
    SSL_CTX_set_min_proto_version(t, TLS1_2_VERSION);
    SSL_CTX_set_options(t, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(t, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(t, SSL_SESS_CACHE_OFF); // tickets are the client's to keep
    SSL_CTX_set_alpn_select_cb(t, choose_protocol, NULL);
    SD_TRY(sd_open_regular(&fd, &size, cert, err)); // says what is wrong with a path
    close(fd);
    SD_CHECK(SSL_CTX_use_certificate_chain_file(t, cert) == 1, err, SD_EINVAL,
             "%s: is no certificate in PEM; give the server's own, then those above it", cert);
    SD_TRY(read_key(&pkey, key, err));
    SD_CHECK(SSL_CTX_use_PrivateKey(t, pkey) == 1 && SSL_CTX_check_private_key(t) == 1, err,
             SD_EINVAL, "%s: is not the key of the certificate in %s; give the pair", key, cert);
    *out = t, t = NULL;
out:
    EVP_PKEY_free(pkey);
    SSL_CTX_free(t);
    ERR_clear_error();
    return st;
}

void sd_tls_close(sd_tls *t) {
    SSL_CTX_free(t);
}

struct bufferevent *sd_tls_accept(sd_tls *t, struct event_base *base, int fd) {
    SSL *ssl = SSL_new(t);
    struct bufferevent *bev =
        ssl ? bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, 0) : NULL;
    if (!bev) SSL_free(ssl);
    return bev;
}

void sd_tls_free(struct bufferevent *bev) {
    SSL *ssl = bufferevent_openssl_get_ssl(bev);
    bufferevent_free(bev);
    SSL_free(ssl);
    ERR_clear_error(); // what it said is nobody's now: the queue is the thread's
}

void sd_tls_say_goodbye(struct bufferevent *bev) {
    SSL *ssl = bufferevent_openssl_get_ssl(bev);
    if (SSL_is_init_finished(ssl)) SSL_shutdown(ssl);
    ERR_clear_error();
}

bool sd_tls_is_plain_http(struct bufferevent *bev) {
    unsigned long e = bufferevent_get_openssl_error(bev);
    return e && ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_HTTP_REQUEST;
}
