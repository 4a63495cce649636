// Records out of a file of any bytes and what they mean; the first byte chooses the name's ending.
#include "datasets/read/format.h"
#include "datasets/read/reader.h"
#include "datasets/read/record_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const ending[] = {"jsonl",   "json",   "txt",    "md",       "csv",
                                     "tsv",     "tar",    "tar.gz", "tar.zst",  "tar.xz",
                                     "zip",     "tgz",    "txz",    "jsonl.gz", "jsonl.zst",
                                     "json.xz", "csv.gz", "md.zst", "ndjson.xz"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    sd_error err;
    sd_reader *r = NULL;
    sd_data_format format = SD_FORMAT_AUTO;
    if (size < 1) return 0;
    snprintf(path, sizeof path, "/dev/shm/fuzz_reader_%d.%s", (int)getpid(),
             ending[data[0] % (sizeof ending / sizeof *ending)]);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data + 1, 1, size - 1, f) != size - 1 || fclose(f) != 0) abort();
    if (sd_reader_open(&r, path, &err) == SD_OK) {
        const sd_record *rec;
        while (sd_reader_next(r, &rec, &err) == SD_OK && rec) {
            sd_example ex;
            size_t at;
            if (!rec->json && !sd_valid_utf8(rec->bytes, rec->len, &at)) abort();
            if (rec->json && !json_is_object(rec->json)) abort();
            sd_example_make(&ex, rec, &format, &err);
            sd_example_free(&ex);
            if (rec->number % 7 == 6) format = SD_FORMAT_AUTO;
        }
    }
    sd_reader_close(r);
    unlink(path);
    return 0;
}
