// Writing a trace. Lines are made by hand in one buffer: a round is written between two steps.
#include "decode/draft/trace.h"

#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"

#include <string.h>

enum { MOST_TIMES = 4096 };

struct sd_trace {
    sd_replace file;
    sd_buf line;
    bool lost; // a part of the line had no place
    bool full; // the file is as long as it may become
    size_t written, most;
    double *times; // [MOST_TIMES] measured since the last round
    int n_times;
    bool first[2]; // no drafter, no chain of this answer was written yet
};

sd_status sd_trace_create(sd_trace **out, const char *path, size_t most, sd_error *err) {
    sd_status st = SD_OK;
    sd_trace *t = sd_alloc(1, sizeof *t);
    SD_CHECK_ALLOC(t, err);
    t->times = sd_alloc(MOST_TIMES, sizeof *t->times);
    SD_CHECK_ALLOC(t->times, err);
    t->line = sd_buf_make(SD_TRACE_LINE);
    t->most = most > 0 && most < SD_TRACE_MOST ? most : SD_TRACE_MOST;
    SD_TRY(sd_replace_open(&t->file, path, err));
    *out = t, t = NULL;
out:
    sd_trace_close(t);
    return st;
}

sd_status sd_trace_commit(sd_trace *t, sd_error *err) {
    return sd_replace_commit(&t->file, err);
}

void sd_trace_close(sd_trace *t) {
    if (!t) return;
    sd_replace_abort(&t->file);
    sd_buf_free(&t->line);
    free(t->times);
    free(t);
}

#define PUT(...) (t->lost |= !sd_buf_printf(&t->line, __VA_ARGS__))

static void end_line(sd_trace *t) {
    PUT("\n");
    if (t->lost) {
        sd_log(SD_LOG_WARN, "a line of the trace has no place in memory and is left out");
    } else if (t->full || t->written + t->line.len > t->most) {
        if (!t->full) sd_log(SD_LOG_WARN, "the trace is full; what follows is not recorded");
        t->full = true;
    } else {
        // Errors stay on the file, and sd_trace_commit finds them.
        t->written += fwrite(t->line.data, 1, t->line.len, t->file.f);
    }
    sd_buf_clear(&t->line);
    t->lost = false;
}

#define PUT_LIST(name, n, format, item)                                                            \
    do {                                                                                           \
        PUT(",\"%s\":[", name);                                                                    \
        for (int i = 0; i < (n); i++) PUT("%s" format, i ? "," : "", item);                        \
        PUT("]");                                                                                  \
    } while (0)

void sd_trace_head(sd_trace *t, const sd_planner *p, const sd_step_costs *costs) {
    PUT("{\"specdec_trace\":1,\"drafters\":[");
    for (int i = 0; i < p->n_sources; i++) {
        const sd_drafter_kind *kind = p->source[i].kind;
        PUT("%s{\"name\":\"%s\",\"bytes\":", i ? "," : "", kind->name);
        if (kind->read_bytes)
            PUT("%zu}", kind->read_bytes(p->source[i].shared));
        else
            PUT("null}");
    }
    PUT("],\"target_bytes\":%zu,\"vocabulary\":%d,\"length\":%d,\"slots\":%d", p->o.target_bytes,
        p->o.V, p->o.length, p->most);
    if (costs)
        PUT_LIST("costs_ms", SD_STEP_COSTS, "%.17g", costs->ms[i]);
    else
        PUT(",\"costs_ms\":null");
    PUT("}");
    end_line(t);
}

void sd_trace_prefill(sd_trace *t, int rows, double seconds) {
    PUT("{\"prefill\":%d,\"seconds\":%.17g}", rows, seconds);
    end_line(t);
}

void sd_trace_timed(void *trace, double seconds) {
    sd_trace *t = trace;
    if (t->n_times < MOST_TIMES) t->times[t->n_times++] = seconds;
}

static void put_proposals(sd_trace *t, const sd_planned *s, int drafters) {
    PUT(",\"proposed\":[");
    for (int j = 0; j < s->n_made; j++) {
        PUT("%s[", j ? "," : "");
        for (int i = 0, n = 0; i < drafters; i++)
            if (s->made[j][i])
                PUT("%s[%d,%d,%d]", n++ ? "," : "", i, s->proposal[j][i].token,
                    s->proposal[j][i].bucket);
        PUT("]");
    }
    PUT("]");
}

static void put_request(sd_trace *t, const sd_planned *s, int drafters) {
    int accepted = 0;
    while (accepted < s->g && accepted < s->n_emitted && s->draft[accepted] == s->emitted[accepted])
        accepted++;
    PUT("{\"request\":%llu,\"position\":%d,\"last\":%d,\"room\":%d,\"generated\":%d",
        (unsigned long long)s->request, s->position, s->last, s->room, s->generated);
    PUT_LIST("active", drafters, "%d", s->active[i]);
    PUT_LIST("missing", drafters, "%d", s->missing[i]);
    PUT_LIST("ready", drafters, "%d", s->was_ready[i]);
    PUT_LIST("lacking", drafters, "%d", s->lacking[i]);
    put_proposals(t, s, drafters);
    PUT_LIST("source", s->n_draft, "%d", s->source[i]);
    // A forced draft has tokens that nobody proposed.
    PUT_LIST("bucket", s->n_draft, "%d",
             s->made[i][s->source[i]] ? s->proposal[i][s->source[i]].bucket : -1);
    PUT_LIST("probability", s->n_draft, "%.6g", (double)s->prefix_prob[i]);
    PUT(",\"taken\":%d,\"accepted\":%d", s->g, accepted);
    PUT_LIST("emitted", s->n_emitted, "%d", s->emitted[i]);
    PUT("}");
}

void sd_trace_round(sd_trace *t, const sd_planner *p, const sd_trace_step *s) {
    int rows = 0;
    for (int k = 0; k < s->n; k++) rows += 1 + s->sequence[k]->g;
    PUT("{\"round\":%lld,\"planned\":%d,\"rows\":%d,\"prompt_rows\":%d,\"speculating\":%s",
        (long long)p->rounds, s->planned, rows, s->prompt_rows, s->speculating ? "true" : "false");
    PUT_LIST("draft_s", t->n_times, "%.17g", t->times[i]);
    PUT(",\"verify_s\":%.17g,\"seconds\":%.17g,\"requests\":[", s->seconds - s->draft_seconds,
        s->seconds);
    for (int k = 0; k < s->n; k++) {
        if (k) PUT(",");
        put_request(t, s->sequence[k], p->n_sources);
    }
    PUT("]}");
    t->n_times = 0;
    end_line(t);
}

void sd_trace_answer(sd_trace *t, uint64_t request, const int32_t *tokens, int n) {
    PUT("{\"answer\":%llu", (unsigned long long)request);
    PUT_LIST("tokens", n, "%d", tokens[i]);
    PUT(",\"shadow\":[");
    t->first[0] = true;
    t->first[1] = false;
}

void sd_trace_shadow(sd_trace *t) {
    PUT("%s[", t->first[0] ? "" : "],");
    t->first[0] = false;
    t->first[1] = true;
}

void sd_trace_chain(sd_trace *t, const sd_proposal *p, int n) {
    PUT("%s[", t->first[1] ? "" : ",");
    t->first[1] = false;
    for (int i = 0; i < n; i++) PUT("%s[%d,%d]", i ? "," : "", p[i].token, p[i].bucket);
    PUT("]");
}

void sd_trace_answer_end(sd_trace *t) {
    PUT("%s]}", t->first[0] ? "" : "]");
    end_line(t);
}
