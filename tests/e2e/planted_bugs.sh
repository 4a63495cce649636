#!/usr/bin/env bash
# Planted errors in training, sampling and serving, one at a time: each must make a test fail. Nothing in the checkout changes.
#
#   tests/e2e/planted_bugs.sh [SPECDEC [NAME]]    a minute or two; needs the unit tests built beside that binary (default build/release/specdec); NAME: those
#                                                 alone that have it in their names
#
# TAP on standard output. A test that no planted error can make fail proves nothing; this is the proof that these can.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(dirname "${1:-build/release/specdec}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
only=${2:-} failed=0 number=0 turn=1
flags=(-std=c11 -D_GNU_SOURCE -O1 -ffp-contract=off -fno-math-errno -fno-trapping-math -w -DTEST_DATA='""')
read -ra found <<<"$(pkg-config --cflags --libs hdf5 libarchive libzstd)"
libs=("$build"/libtest_support.a "$build"/libspecdec.a "${found[@]}" -lcriterion -ldnnl -ljansson -lyaml -lpcre2-8 -lutf8proc -lssl -lcrypto -levent -levent_pthreads -levent_openssl
  -lxxhash -lpthread -lm)
command -v ld.lld >/dev/null && libs+=(-fuse-ld=lld) # a third of the time

# The object of a unit test, which its build has left behind.
object() {
  local found
  for found in "$build"/CMakeFiles/"$1".dir/tests/unit/*/"$1".c.o "$build"/CMakeFiles/"$1".dir/tests/unit/*/*/"$1".c.o; do
    [ -f "$found" ] && echo "$found" && return
  done
}

# plant NAME FILE SED TEST...: the file with the edit, compiled ahead of the library, must break one of the tests.
plant() {
  local name=$1 file=$2 edit=$3 test double=() broken= start=$EPOCHREALTIME
  shift 3
  [[ $name == *"$only"* || $name == control ]] || return
  number=$((number + 1))
  ((number % 2 == turn)) || return
  mkdir -p "$work/src/$(dirname "$file")"
  sed -E "$edit" "$file" >"$work/src/$file"
  if cmp -s "$file" "$work/src/$file"; then
    echo "not ok - planted: $name: the edit no longer finds its place in $file"
    failed=1
    return
  fi
  for test in "$@"; do
    double=()
    [[ $test == *_f64 ]] && double=("$build"/libspecdec_f64.a)
    local real=()
    [[ $test == *_f64 && $file == *_real.c ]] && real=(-DSD_REAL_DOUBLE)
    if ! "${CC:-cc}" "${flags[@]}" "${real[@]}" -I. -c "$work/src/$file" -o "$work/planted.o" ||
      ! "${CC:-cc}" "$(object "$test")" "$work/planted.o" "${double[@]}" "${libs[@]}" -o "$work/test" 2>"$work/log"; then
      echo "not ok - planted: $name: does not build"
      tail -3 "$work/log"
      failed=1
      return
    fi
    timeout 300 "$work/test" --quiet --fail-fast -j1 >/dev/null 2>&1 || broken=$test
    [ -n "$broken" ] && break
  done
  if [ -n "$broken" ]; then
    echo "ok - planted: $name ($broken fails, $((${EPOCHREALTIME/./} / 1000 - ${start/./} / 1000)) ms)"
  else
    echo "not ok - planted: $name: no test fails"
    failed=1
  fi
}

# The control: an edit that changes nothing must break nothing.
control=$(plant "control" trainer/pass/batch.c 's/out->N = out->n_segments/out->n_segments = out->N/' test_train)
if [[ $control == *"no test fails"* ]]; then
  echo "ok - planted: a harmless edit breaks nothing"
else
  echo "not ok - planted: a harmless edit breaks a test or does not build"
  failed=1
fi
plants() {
plant "a packed weight's checksum is not compared" model/infer/weight_cache/file.c 's/return whole && want && strcmp\(hex, want\) == 0;/return whole;/' test_weight_cache
plant "a model is what it was when its time is" model/infer/weight_cache/identity.c 's/same = now && path && json_equal\(now, row\)/same = now \&\& path \&\& strcmp(json_string_value(json_object_get(now, "changed")), json_string_value(json_object_get(row, "changed"))) == 0/' test_weight_cache_sources
plant "a model that changed while it was packed is taken" model/load/digest.c 's/else if \(worst == SD_MAP_CHANGED\)/else if (false)/' test_weight_cache_sources
plant "a model that was restored is refused" model/load/digest.c 's/if \(worst == SD_MAP_CHANGED && o->hashed\)/if (false)/' test_serve_sleep
plant "a failed waking is no matter of health" decode/engine/between.c 's/e->stats\.wake_failed = st != SD_OK;/e->stats.wake_failed = false;/' test_serve_sleep
plant "a row of the embedding is taken as the file has it now" model/infer/cpu/forward.c 's/sd_row_sum\(copy, stride\) == cx->row_sum\[r->token\]/true/' test_weight_cache_sources
plant "a cut file reads as zeros and nobody asks" base/files/map.c 's/atomic_store\(&guards\[i\]\.lost, true\);//' test_map
plant "packing leak: segments of a row are one" trainer/pass/batch.c 's/&& b->segment\[i - 1\] == b->segment\[i\]//' test_train
plant "a segment's first token is predicted from its neighbour" trainer/pass/batch.c 's/if \(goes_on && b->label/if (t > 0 \&\& b->label/' test_train
plant "mean of means: a micro-batch's gradient is divided by its own tokens" kernels/train/head_real.c \
  's/\(real\)\(1 \/ s->sum\[n\]\)/(real)(1 \/ s->sum[n] \/ N)/' test_train_ops_f64
plant "wrong alpha: the scale is alpha" trainer/pass/layout.c 's/: alpha \/ r;/: alpha;/' test_train
plant "rsLoRA scaled as LoRA" trainer/pass/layout.c 's/alpha \/ sqrt\(\(double\)r\)/alpha \/ r/' test_train
plant "the scale is missing in dB" kernels/train/ops_real.c 's/N, q->s, dy \+ q->row/N, 1, dy + q->row/' test_train_ops_f64
plant "the adapter's part of dx is missing" kernels/train/ops_real.c 's/if \(l->R > 0\) sd_gemm\(false, false, N, l->in/if (0) sd_gemm(false, false, N, l->in/' test_train_ops_f64
plant "RoPE's backward rotates forward" kernels/train/ops_real.c 's/rot, interleaved, -1\)/rot, interleaved, 1)/' test_train_ops_f64
plant "attention sees one position ahead" kernels/train/attention_real.c 's/\*to = b->q0 \+ i \+ 1 - b->k0;/*to = b->q0 + i + 2 - b->k0 > b->keys ? b->keys : b->q0 + i + 2 - b->k0;/' test_train_ops_f64
plant "delta is missing in the softmax's gradient" kernels/train/attention_real.c 's/\(dP\[k\] - delta\)/dP[k]/' test_train_ops_f64
plant "the norm's gradient forgets the row's mean" kernels/train/ops_real.c 's/ - pull \* x\[c\]//' test_train_ops_f64
plant "the backward pass stops one map too early" trainer/pass/block_real.c 's/if \(layer > t->lowest\) return true;/if (layer > t->lowest + 1) return true;/' test_train_f64
plant "the gradient of a skipped head row is what stood there" trainer/pass/loss_head_real.c 's/memset\(t->mem.dx, 0, /memset(t->mem.dx, 0, 0 * /' test_train
plant "a segment has the weight of the one before it" trainer/pass/batch.c 's/return low;/return low > 0 ? low - 1 : 0;/' test_train_f64
plant "a segment's weight is left out of its gradient" trainer/pass/loss_head_real.c 's/if \(t->weight\) weigh_row\(t, n\);//' test_train_f64
plant "what attention adds is not normed" model/infer/cpu/block.c 's/if \(layer->post_attn_norm\) sd_by_rows\(cx, add_attention, hp->C\);//' test_forward_reference
plant "a layer with a window turns as the others do" model/infer/cpu/block.c 's/\(size_t\)layer->rope \* cx->max_rows/(size_t)0 * cx->max_rows/' test_forward_reference
plant "a row sees one position before its window" model/infer/cpu/attention.c 's/\.window = cx->window\}/.window = cx->window + (cx->window > 0)}/' test_forward_reference
plant "a part of a fused map takes the first part's factors" model/infer/cpu/lora.c 's/&l->B\[part\]/\&l->B[0]/' test_merge
plant "LongRoPE goes by the original context alone" model/infer/cpu/forward.c 's/const int beyond = .*;/const int beyond = 0;/' test_model
plant "the gradient passes by the norm of what is added" trainer/pass/block_real.c 's/if \(!y\) return t->mem.dx \+ at;/return t->mem.dx + at;/' test_train_f64
plant "top-p keeps one token too many" kernels/sample/sampler.c 's/if \(seen >= want\) break;/if (seen >= want) { i += i < n; break; }/' test_sampler
plant "top-k keeps one token too few" kernels/sample/sampler.c 's/if \(k > 0 && n > k\) n = k;/if (k > 1 \&\& n >= k) n = k - 1;/' test_sampler
plant "top-p shares out mass that min-p took away" kernels/sample/sampler.c 's/if \(k > 0 \|\| all\)/if (k > 0)/' test_sampler
plant "NaN passes for a small logit" kernels/sample/sampler.c 's/if \(s->simd->has_nan\(logits, s->V\)\) return -1;//' test_sampler
plant "each row of a draft has the first one's mask" decode/engine/constraint.c 's/go_ahead\(s, n\) && \(c->allowed/go_ahead(s, 0) \&\& (c->allowed/' test_engine_constraint
plant "an answer that begins again forgets what it has said" decode/engine/constraint.c 's/for \(int i = r->n_prompt; i < s->n; i\+\+\)/for (int i = s->n; i < s->n; i++)/' test_engine_constraint
plant "a mask has no budget" model/grammar/mask.c 's/sd_automaton_limit\(g, most\);/sd_automaton_unlimited(g);/' test_grammar
plant "each mask of a step has a budget of its own" decode/engine/constraint.c 's/mask, c->V, c->left\)/mask, c->V, NULL)/' test_engine_constraint
plant "an unknown keyword passes in silence" model/grammar/schema/keywords.c 's/if \(!k && strncmp\(key, "x-", 2\) == 0\)/if (!k)/' test_keywords
plant "what stands beside an enum is forgotten" model/grammar/schema/read.c 's/if \(st == SD_EMISMATCH\) continue;//' test_keywords
plant "a repeat of a repeat is read" model/grammar/pattern/regex.c 's/if \(see_repeat\(p\)\) return fail\(p, SD_EINVAL, "a repeat of a repeat"\);//' test_patterns
plant "the check of a pattern reads \\v as PCRE2 does" model/grammar/schema/match.c "s/if \\(c == 'v'\\) return .*;//" test_patterns
plant "a dot takes any end of line in the check of a pattern" model/grammar/schema/match.c "s/c == '\\.'\\)/c == 1)/" test_patterns
plant "a match pays nothing for groups in groups" model/grammar/schema/match.c 's/2 \+ depth \/ 2/2/' test_patterns
plant "a bound that is left out is let through" model/grammar/pattern/decimal.c 's/\(k.low == 0 && !b->no_low\)/k.low == 0/' test_schema
plant "a string has room for one character more" model/grammar/automaton.c 's/l->max - f->count \+ 1/l->max - f->count + 2/' test_grammar
plant "an answer is not checked at its end" decode/serve/generation_events.c 's/if \(ev->finish != SD_FINISH_STOP \|\|/if (true ||/' test_serve_constraint
plant "an answer that fails its check is sent" decode/serve/generation_events.c 's/c->unfit = c->check_result.status == SD_EMISMATCH;/c->unfit = false;/' test_serve_constraint
plant "a draft model draws without the masks" decode/engine/constraint.c 's/if \(c->spent \|\| !go_ahead\(s, n\)\) return NULL;/return NULL;/' test_engine_constraint
plant "a drafter's proposals are counted as its neighbour's" decode/draft/planner.c 's/s->own, i, s->proposal/s->own, 0, s->proposal/' test_engine_drafters
plant "a piece of the prompt is repeated beyond its end" decode/draft/corpus.c 's/ \|\| c->text\[p->from\] == p->behind;/;/' test_drafter
plant "the next value is looked for in the whole prompt" decode/draft/corpus.c 's/const bool is_next = .*;/const bool is_next = false;/' test_drafter
plant "a copy of an index may go beyond its completion" datasets/corpus/corpus_index.c 's/if \(token\[k\] < 0\)/if (token[k] < -1)/' test_corpus_index
plant "one token alone is a copy" trainer/run/copies.c 's/LEAST = 2/LEAST = 1/' test_copies
plant "a drafter is asked before it is ready" decode/draft/planner.c 's/= kind->prepare\(p->drafter\[k\], p->o.prepare_rows\)/= kind->prepare(p->drafter[k], p->o.prepare_rows) || true/' test_engine_drafters
plant "a draft model's proposals are those of the batch's first" decode/draft/model.c 's/&m->picked\[picks\+\+\]/\&m->picked[0 * picks++]/' test_draft_model
plant "drafted tokens stay in the draft model's cache" decode/draft/model.c 's/d->kv->len = d->filled < d->n - 1 \? d->filled : d->n - 1;/d->kv->len = d->filled;/' test_engine_rounds
plant "an ended request keeps the draft model's pages" decode/engine/drafters.c 's/kind->end\(s->drafter\[i\]\)/kind->rewind(s->drafter[i])/' test_draft_model
plant "an adapter of the draft is left out of its rows" decode/draft/model.c 's/\.adapter = d->adapter/.adapter = NULL/' test_draft_model
plant "a draft model is asked for all or for none" decode/draft/planner.c 's/if \(worth > best\) best = worth, best_n = k \+ 1;/if (worth > best) best = worth, best_n = n;/' test_planner
plant "a batch is given one row too many" decode/draft/controller.c 's/if \(pass == 0 && worth > best\) best = worth, best_n = n \+ 1;/if (pass == 0 \&\& worth > best) best = worth, best_n = n + 2;/' test_planner
plant "the guard never rests" decode/draft/controller.c 's/c->backoff_tokens = GUARD_TOKENS, //' test_planner
plant "what a draft model must read first is free" decode/draft/planner.c 's/return positions > 1 \? row \* \(positions - 1\) : 0;/(void)row; return 0;/' test_planner
plant "probes are forgotten" decode/draft/planner.c 's/p->rounds % PROBE_ROUNDS != 0/true/' test_planner
plant "a trace forgets that a step was mixed" decode/draft/replay.c 's/if \(s->prompt_rows > 0\) goto out;/if (false) goto out;/' test_trace
plant "a trace forgets what drafting took" decode/draft/trace.c 's/t->times\[t->n_times\+\+\] = seconds/t->times[t->n_times++] = 0 * seconds/' test_trace
plant "a step's tokens are drawn with the noise of the position before" model/infer/cpu/pick.c 's/\(int64_t\)row->pos \+ 1/(int64_t)row->pos/' test_backend
plant "a row's token is that of another row's logits" model/infer/cpu/pick.c 's/const float \*logits = j->logits \+ .*;/const float *logits = j->logits;/' test_backend
plant "a prompt's place in a list changes its sampling" decode/serve/generation_start.c 's/c->index % r->n/c->index/' test_serve_live
plant "the hashes of a checkpoint's manifest are not compared" trainer/checkpoint.c 's/if \(sd_sha256_equal\(want, have\)\) return SD_OK;/return SD_OK;/' test_checkpoint
plant "a save removes checkpoints that it did not make" trainer/checkpoint_folder.c 's/is_own\(all, l.step\[i\]\) && \+\+kept/++kept/' test_checkpoint
plant "what cannot be read counts as damaged" base/status.c 's/status == SD_ELIMIT/status == SD_ELIMIT || status == SD_EIO/' test_checkpoint
plant "the label mask is shifted by one" datasets/read/loss_mask.c 's/l->supervised\[i\] = 1;/l->supervised[i + 1 < l->ids.n ? i + 1 : i] = 1;/' test_labels
plant "what the template writes behind the end of turn is learnt" datasets/read/loss_mask.c 's/if \(end_token >= 0 \&\& !o->template_tail\)/if (0)/' test_labels
plant "a token that straddles the prompt's edge is learnt" datasets/read/loss_mask.c 's/if \(\*at >= r.begin \&\& /if (*at + len > r.begin \&\& /' test_labels
plant "the mask of a piece is that of the token before" datasets/build/token_store.c 's/i > 0 && supervised\[i\] \?/i > 0 \&\& supervised[i - 1] ?/' test_dataset
plant "data prepared with another chat template passes for this one's" datasets/build/recipe_key.c 's/sd_hasher_add\(h, chat, strlen\(chat\) \+ 1\);//' test_run_template
plant "a chat template that changed after training is used" model/adapter/chat_template.c 's/!want\[0\] \|\| strcmp\(want, is\.hex\) == 0/true/' test_chat_template
plant "a prepared file's chat template is not asked" trainer/run/data.c 's/strcmp\(was \? was : "", is\.hex\) == 0/true/' test_run_template
plant "the end of a template's turn ends no answer" model/chat.c 's/\*out = ids\.id\[i\];//' test_chat_template
plant "parts of a split model are taken by their names alone" model/formats/gguf_split.c 's/is\.no == i && is\.count == p->count/true/' test_gguf_split
plant "a line of metrics shows the last evaluation" trainer/report/metrics.c 's/!s->bar && !isnan\(m->eval_loss\)/!isnan(s->last_eval)/' test_metrics
plant "an evaluation after a resume has a speed of 0" trainer/loop.c 's/\{\.tok_s = NAN\}/{0}/' test_run_resume
plant "a turn's weight is read over" datasets/read/format_fields.c 's/if \(!on\) \*unweighted = true;/(void)unweighted;/' test_formats
plant "a prepared file's hash is not compared" datasets/dataset.c 's/strcmp\(d->sha256.hex, hash\) == 0/true/' test_dataset_damage
plant "a chunk's size is not compared" datasets/store/hdf5_read.c 's/ZSTD_getFrameContentSize\(stored, n\) != a->plain \|\|/0 ||/' test_hdf5
plant "an answer's edge is looked for in a text that lost its first space" datasets/read/loss_mask.c 's/sd_tokenizer_spell\(t, ids.id/sd_tokenizer_decode(t, ids.id/' test_labels
plant "among pieces with equal scores the first of the file merges first" model/tokenizer/scores.c 's/if \(i == 0 \|\| order\[i\].score != order\[i - 1\].score\) //' test_pieces
plant "a pair that comes too late for its list is forgotten" model/tokenizer/bpe.c 's/return late_push\(s, rank, at\);$/return s->lists ? true : late_push(s, rank, at);/' test_pieces
plant "an answer keeps the space that the tokenizer puts before a text" decode/engine/output.c 's/bytes \+ drop, len - drop/bytes, len/' test_engine_text
plant "penalties forget the draft's tokens" decode/engine/shaping.c 's/p->n_recent = j;/p->n_recent = 0;/' test_engine_shaping
plant "a draft's second token of a kind counts as the first" decode/engine/shaping.c 's/if \(i >= 0\) said = .*;//' test_engine_shaping
plant "bad words forget the draft's tokens" decode/engine/shaping.c 's/int at = s->n \+ j;/int at = s->n;/' test_engine_shaping
plant "the least length forgets the draft's tokens" decode/engine/shaping.c 's/bool early = s->n \+ j -/bool early = s->n -/' test_engine_shaping
plant "who takes a request up again counts none of what it said" decode/engine/shaping.c 's/c->counted >= s->request->r.n_prompt;/c->counted >= s->begun_at;/' test_engine_shaping
plant "a draft model draws from unshaped logits" decode/draft/model.c 's/d->shape = start->shaping,/d->shape = NULL,/' test_engine_shaping
plant "a recent token is penalised twice" kernels/sample/sampler.c 's/\*x = biased\[i\];//' test_sampler
plant "a stop string ends an answer within its least length" decode/engine/output.c 's/bool may_end = .*;/bool may_end = true;/' test_engine_shaping
plant "the trained system text is put before every conversation" model/defaults_ask.c 's/d->system_share >= SD_SYSTEM_SHARE/true/' test_defaults
plant "a system text goes from the base to its adapters" model/defaults.c 's/^void sd_defaults_under\(sd_defaults \*d, const sd_defaults \*below\) \{/&\n    if (!d->system \&\& below->system) d->system = sd_strdup(below->system);/' test_defaults
plant "a tuned model's temperature goes before what the client said" decode/serve/generation_prompt.c 's/\.given = \{r->has_temperature, /.given = {false, /' test_serve_defaults
plant "the last system text counts as the commonest" datasets/build/system_text.c 's/if \(\+\+c->records <= s->records\) goto out;/c->records++;/' test_dataset
plant "a damaged manifest's sampling passes for none" model/defaults.c 's/return sd_key_refuse\(v, sd_default_name\[i\], want, file, err\);/return SD_OK;/' test_defaults
plant "a rejected draft's token is said" decode/engine/step.c 's/int32_t x = e->picked\[s->first_picked \+ j\]\.token;/int32_t x = j < drafts \&\& j > 0 ? s->plan.draft[j] : e->picked[s->first_picked + j].token;/' test_accept_law
plant "a round goes on behind a rejected draft" decode/engine/step.c 's/bool accept = j < drafts && s->plan.draft\[j\] == x;/bool accept = j < drafts;/' test_accept_law
plant "the token behind a draft is the one of the row before" decode/engine/step.c 's/e->picked\[s->first_picked \+ j\]\.token/e->picked[s->first_picked + j - (decoding \&\& j > 0 \&\& j == drafts)].token/' test_accept_law
plant "a draft decides where its round ends" decode/engine/step.c 's/emitted\[n\+\+\] = x;/if (j > 0 \&\& j < drafts \&\& s->plan.draft[j] != x) break; emitted[n++] = x;/' test_accept_law
plant "a page is found by its hash, and its tokens are not compared" model/infer/prefix_cache.c \
  's/return \(uint64_t\)r\[1\] << 32 \| r\[0\];/return 0;/; s/memcmp\(n->ids, ids, sizeof n->ids\) == 0/true/' test_prefix_cache
plant "tenants find each other's prefixes" model/infer/prefix_cache.c 's/stir\(c, 0, o->tenant\)/stir(c, 0, 0)/; s/n->owner\.tenant == o->tenant/true/' test_prefix_cache
plant "a prefix is found whatever its adapter" decode/engine/slot.c 's/r->adapter \? r->adapter->generation : 0/0/' test_engine_prefix
plant "rows of a draft can be found" model/infer/prefix_cache.c 's/\(kv->published \+ 1\) \* SD_KV_PAGE <= kv->len/kv->published < kv->pages/' test_prefix_cache
plant "a window's pages are taken for there" model/infer/prefix_cache.c 's/c->whole\[g\] = m \+ 1;//' test_prefix_cache
plant "a copied page keeps the scales that stood there" model/infer/cpu/kv_memory.c 's/memcpy\(a, b, scales\);//' test_prefix_cache
plant "a copy takes one position too many for the same" model/infer/prefix_cache.c 's/kv->len \+= same;/kv->len += same + (same < left);/' test_prefix_cache
plant "a key finds another one's prefixes" decode/serve/generation_start.c 's/if \(name->is_key\) memcpy/if (0) memcpy/' test_serve_prefix
plant "a salt keeps nobody apart" decode/serve/generation_start.c 's/"%s", salt\)/"%s", "")/' test_serve_prefix
plant "priorities are those of the order of arrival" decode/engine/queue.c 's/t->last->r\.priority <= j->r\.priority/true/' test_engine_prefix
plant "a line that changes with every request reaches the model" decode/serve/api/openai/messages.c 's/first && strcmp\(role, "system"\) == 0/false/' test_api_request
plant "the masks of an answer whose prompt was found are left out" decode/engine/prompt.c 's/ && sd_slot_shape\(s, 1\) == 0\) s->rows--;/ \&\& s->stats.cached_tokens == 0&/' test_engine_shaping
plant "salts that begin alike are one" decode/serve/generation_start.c 's/"%s", salt\);/"%.1s", salt);/' test_serve_prefix
plant "a part of a page is taken over without its keys and values" model/infer/prefix_cache.c 's/p->memory->backend->kv_copy_page\(/if (0) &/' test_prefix_cache
plant "a rejected draft's tokens stay counted" decode/engine/shaping.c 's/^        count_ahead\(&s->counts, s->recent, draft, rows - 1\);/&\n        for (int i = 0; i < rows - 1; i++) if (s->counts.place[draft[i]]) s->counts.seen[s->counts.place[draft[i]] - 1].answered++;/' test_engine_shaping
plant "a rejected draft leaves its grammar's state behind" decode/engine/constraint.c 's/^    sd_grammar_copy\(&c->ahead, &c->base\);$/    if (c->drafted == 0) &/' test_engine_constraint
plant "an answer that begins again may say as much as a new one" decode/engine/slot.c 's/s->stats = c->stats;/s->stats = c->stats, s->stats.generated = 0;/' test_engine_prefix
plant "who waits for pages is overtaken for ever" decode/engine/queue.c 's/ && now - t->first->queued < PATIENCE_S//' test_engine_prefix
plant "a marker that is cut between two pieces is content" model/dialogue/answer.c 's/return SD_FIND_PARTLY;/return SD_FIND_NO;/' test_dialogue_answer
plant "special tokens that mark a call stay out of its text" decode/engine/output.c 's/if \(r->shown_token\[i\] == token\) return true;/if (r->shown_token[i] == token) return false;/' test_serve_tools
plant "a strict function takes any object" model/dialogue/tool_parameters.c 's/if \(!sd_rules_strict\(m, i\)\) return true;/if (parameters || !sd_rules_strict(m, i)) return true;/' test_dialogue_grammar
plant "a call in another spelling goes around the grammar" model/dialogue/answer.c 's/if \(!p->o.held \|\| /if (true || /' test_dialogue_strict
plant "a text may begin as a call that is held" model/dialogue/tool_grammar.c 's/words\[x.begun.n_words\+\+\] = word\[i\];//' test_dialogue_strict
plant "a marker that is a special token may be spelled in others" model/dialogue/tool_grammar.c 's/\{\.without = &mark, \.len = &len, \.n = 1\}/{.without = (const char *[]){"#"}, .len = (size_t[]){1}, .n = 1}/' test_dialogue_strict
plant "a tagged string may hold the end of its tag" model/grammar/schema/scalar.c 's/if \(!narrow\(r, d, own\)\) return -1;/if (*d ? (sd_dfa_free(own), false) : !narrow(r, d, own)) return -1;/' test_dialogue_parameters
plant "a finished call is not checked" model/dialogue/answer_check.c 's/if \(x->in_call && x->st == SD_OK\)/if (false)/' test_dialogue_strict
plant "a row of a draft is forced as the first one" decode/engine/shaping.c 's/sd_slot_forced\(s, j\)/sd_slot_forced(s, 0)/' test_engine_reasoning
plant "a forced token ends the answer" decode/engine/output.c 's/if \(!forced && is_stop/if (is_stop/' test_engine_reasoning
plant "a stop text within forced tokens ends the answer" decode/engine/output.c 's/may_end = !forced && /may_end = /' test_engine_reasoning
plant "reasoning has one token more than its budget" decode/engine/reasoning.c 's/x->tokens >= r->budget/x->tokens > r->budget/' test_engine_reasoning
plant "what ends the reasoning is not drafted" decode/draft/grammar.c 's/f->only \? f->only\(/false ? f->only(/' test_engine_reasoning
plant "a request that begins again forgets that it reasons" decode/engine/reasoning.c 's/i < s->n; i\+\+\) take\(&s->reasoning/i < 0; i++) take(\&s->reasoning/' test_engine_reasoning
plant "a budget that ends within a character leaves the grammar" model/dialogue/tool_grammar.c 's/seq\(m, \(int\[\]\)\{whole, cut\}, 2\), 0, -1\)/seq(m, (int[]){whole, cut}, 2), 0, 0)/' test_dialogue_strict
plant "a marker within a string of JSON ends a message" model/dialogue/answer_harmony.c 's/bool json = p->o.held/bool json = false \&\& p->o.held/' test_dialogue_strict
plant "a tag within a string of JSON ends a value" model/dialogue/answer_xml.c 's/end == SD_VALUE_DONE \? SD_SCAN_WHOLE : SD_SCAN_OVER/SD_SCAN_OVER/' test_dialogue_parameters
plant "later system turns are left to a template that drops them" model/dialogue/dialogue.c 's/has\(r, FIRST\) && has\(r, SYSTEM\)/has(r, FIRST)/' test_dialogue_fold
plant "a plan forgets adapters' products" model/infer/cpu/memory.c 's/sum->adapters \+= product_bytes\(cx, most\);//' test_engine_memory
plant "a plan forgets the masks that end reasoning" decode/engine/memory.c 's/\(\(size_t\)n_forced \+ 1\) \* words/words/' test_engine_memory
plant "a text above a window's pages has no nodes" model/infer/prefix_cache.c 's/return windows \? nodes \+ .*;/return nodes;/' test_prefix_cache
plant "an administrator is one of many" decode/serve/http/connection_request.c 's/c->client->admin = l->keys\.key\[key\]\.admin;/c->client->admin = false;/' test_serve_keys
plant "any key opens what is for administrators" decode/serve/http/auth.c 's/k->key\[found\]\.admin \? 0 : 403/true ? 0 : 403/' test_serve_keys
plant "a server without keys opens what is for administrators" decode/serve/http/auth.c 's/level == SD_AUTH_USER \? 0 : 403;/0;/' test_serve_keys
plant "a reload without keys opens the server" decode/serve/http/listener.c 's/keys\.n > 0 \|\| l->keys\.n == 0/true/' test_serve_keys
plant "a reload takes aliases away that nobody spoke of" decode/serve/adapters.c 's/if \(k->n_aliases >= 0\)/if (true)/' test_serve_adapters
plant "a load takes no alias away" decode/serve/adapters.c 's/if \(k->n_aliases >= 0\)/if (false)/' test_serve_adapters
plant "what was counted of an adapter goes with it" decode/serve/metrics/metrics.c 's/    add_counts\(gone, c\);/    (void)add_counts;/' test_serve_adapters
plant "counts stay when their adapter has gone" decode/serve/adapters.c 's/if \(!used\) sd_metrics_retire/if (false) sd_metrics_retire/' test_serve_adapters
plant "counts go while another generation has their name" decode/serve/adapters.c 's/if \(!used\) sd_metrics_retire/if (c) sd_metrics_retire/' test_serve_adapters
plant "a reload keeps the old keys" decode/serve/http/listener.c 's/    l->keys = keys;/    l->keys = l->keys;/' test_serve_keys
plant "a reload takes the lines before a mistake" decode/serve/http/auth.c 's/        if \(st != SD_OK\) \{/        if (false) {/' test_serve_keys
plant "everybody is an administrator" decode/serve/provider/message.c 's/\.admin_priority = m->admin_priority != 0/.admin_priority = true/' test_provider test_serve_keys
plant "any word behind a key's hash makes an administrator" decode/serve/http/auth.c 's/SD_CHECK\(w->n < 3 \|\| is_word\(w, 2, "admin"\)/SD_CHECK(true/' test_serve_keys
plant "who waits for pages does not get those that were left for it" decode/engine/queue.c 's/if \(may_overtake\(e, best->first, t\)\) over = t;/over = t;/' test_engine_fair
plant "waiting requests' grammars keep all their states" model/grammar/schema/cache.c 's/n_rest = find_waiting\(c, rest\);/n_rest = 0;/' test_grammar
plant "a label that begins another one never ends" decode/serve/api/decide_labels.c 's/ended && i < p->n_ends/false \&\& i < p->n_ends/' test_decide
plant "labels have shares of all tokens" decode/serve/api/decide_labels.c 's/share\[i\] \/= sum;/(void)sum;/' test_decide
plant "every round of questions has the same order" decode/serve/api/decide.c 's/const int turned = .*;/const int turned = 0 * round;/' test_decide
plant "a run's temperature is left out" decode/serve/generation_readings.c 's/own->decision_temperature\[i\] > 0 \?/false ?/' test_serve_decisions
plant "each question computes its text" decode/serve/generation_readings.c 's/first == 0\) return g->open == 0/first == 0) return true/; s/g->choices\[i - first\]\.ended/true/' test_serve_decisions
plant "a vector is the row before the last" decode/engine/reading.c 's/const bool last = row->pos == s->n - 1;/const bool last = row->pos == s->n - 1 - (s->n > 1 \&\& s->request->r.reading.kind == SD_READ_LAST);/' test_serve_embeddings
plant "a mean has the rows alone that were not found" decode/engine/slot.c 's/if \(j->r\.reading\.kind == SD_READ_MEAN\) return;//' test_serve_embeddings
plant "vectors have the length that they come with" decode/serve/generation_readings.c 's/m->output\.unit && length > 0/false/' test_serve_embeddings
plant "documents come as they were given" decode/serve/generation_readings.c 's/qsort_r\(.*\);/;/;' test_serve_embeddings
plant "no token stands behind a text" model/tokenizer/encode.c 's/\(flags & SD_TOK_ADD_LAST\) && t->add_last/false/' test_pooling test_serve_embeddings
plant "scores that are not wanted are computed" decode/engine/output.c 's/r->score_from > 1 \? r->score_from : 1/1/' test_echo
plant "a message's log probabilities begin with its reasoning" decode/serve/generation_answer.c 's/c->first_content = at;/c->first_content = 1;/' test_responses
plant "a cgroup's limit is taken for what it leaves" base/cgroup.c 's/return used < 0 \? limit : .*;/return limit;/' test_cgroup
}

# Two at a time.
for turn in 0 1; do
  (work=$work/$turn failed=0 number=0 && mkdir "$work" && { plants; exit $failed; }) >"$work/said.$turn" 2>&1 &
  half[turn]=$!
done
for turn in 0 1; do
  wait "${half[turn]}" || failed=1
  cat "$work/said.$turn"
done
exit $failed
