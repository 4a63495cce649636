#include "decode/serve/page/page.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

bool sd_page_policy(char out[SD_PAGE_POLICY]) {
    static const char open[] = "<script>", close[] = "</script>";
    const char *page = (const char *)sd_page, *last = page + sd_page_len;
    const char *tag = memmem(page, sd_page_len, open, sizeof open - 1);
    const char *from = tag ? tag + sizeof open - 1 : last;
    const char *to = memmem(from, (size_t)(last - from), close, sizeof close - 1);
    unsigned char hash[EVP_MAX_MD_SIZE], text[2 * EVP_MAX_MD_SIZE];
    unsigned int n;
    if (!to || EVP_Digest(from, (size_t)(to - from), hash, &n, EVP_sha256(), NULL) != 1)
        return false;
    EVP_EncodeBlock(text, hash, (int)n);
    snprintf(out, SD_PAGE_POLICY,
             "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
             "script-src 'sha256-%s'; connect-src 'self'; frame-ancestors 'none'; "
             "base-uri 'none'; form-action 'none'\r\n",
             (const char *)text);
    return true;
}
