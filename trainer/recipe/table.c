// Every key of a recipe, once. A key that is known but whose feature is missing stands here too: it
// must be refused by name, never read and ignored.
#include "trainer/recipe/table.h"

#define KEY(name_, type_, field, def_, help_, ...)                                                 \
    {                                                                                              \
        .o.name = (name_), .o.type = SD_OPT_##type_, .o.offset = offsetof(sd_recipe, field),       \
        .o.def = (def_), .o.help = (help_), __VA_ARGS__                                            \
    }
#define SAME .same = true
#define RANGE(lo, hi) .o.min = (lo), .o.max = (hi)
#define WORDS(w) .o.value = (w)
#define UNIT(u) .o.unit = (u)
#define EMPTY(w) .empty = (w)
#define KIND(k) .kind = SD_KEY_##k
#define UNBUILT(why) .unbuilt = (why)

const sd_recipe_key sd_recipe_keys[] = {
    KEY("recipe", INT, schema, "1", "version of this schema", RANGE(1, 1)),
    KEY("name", STRING, name, "run", "the run's folder is runs/<name>; A-Z a-z 0-9 . _ -",
        KIND(PLAIN)),
    KEY("seed", INT, seed, "42", "of initialisation and order", RANGE(0, 9007199254740992.0), SAME),
    KEY("deterministic", FLAG, deterministic, "true", "the same bytes on every run",
        UNBUILT("every run is deterministic; leave it true")),

    KEY("base.model", STRING, base.model, NULL, "GGUF file or Hugging Face folder", KIND(PLAIN)),
    KEY("base.sha256", STRING, base.sha256, NULL, "refuse another base than this", EMPTY("null")),
    KEY("base.compute_dtype", ENUM, base.compute_dtype, "auto",
        "fp32 keeps activations and weights' values exact: the parity mode",
        WORDS(SD_TRAIN_COMPUTE), SAME),

    KEY("adapter.type", ENUM, adapter.type, "lora", "kind of adapter", WORDS("lora|dora"), SAME,
        UNBUILT("DoRA is not built; use lora")),
    KEY("adapter.r", INT, adapter.r, "16", "rank", RANGE(1, SD_MAX_RANK), SAME),
    KEY("adapter.alpha", FLOAT, adapter.alpha, "32", "scale: s = alpha / r", RANGE(1e-6, 1e6),
        SAME),
    KEY("adapter.dropout", FLOAT, adapter.dropout, "0", "of the adapter's input", RANGE(0, 0.99),
        SAME, UNBUILT("dropout is not built; leave it at 0")),
    KEY("adapter.target_modules", LIST, adapter.target_modules, "all-linear",
        "all-linear, or a list such as [q_proj, v_proj]", KIND(LIST), SAME),
    KEY("adapter.rank_pattern", LIST, adapter.rank_pattern, NULL, "module: rank, as PEFT has it",
        KIND(PATTERN), RANGE(1, SD_MAX_RANK), SAME),
    KEY("adapter.alpha_pattern", LIST, adapter.alpha_pattern, NULL, "module: alpha, as PEFT has it",
        KIND(PATTERN), RANGE(1e-6, 1e6), SAME),
    KEY("adapter.scaling", ENUM, adapter.scaling, "standard", "rslora: s = alpha / sqrt(r)",
        WORDS("standard|rslora"), SAME),
    KEY("adapter.init", ENUM, adapter.init, "kaiming", "A uniform, B zero", WORDS("kaiming"), SAME),
    KEY("adapter.lr_ratio", FLOAT, adapter.lr_ratio, "1", "LoRA+: learning rate of B over A's",
        RANGE(1e-3, 1e3), SAME),
    KEY("adapter.from", STRING, adapter.from, NULL, "an adapter to continue from", EMPTY("null")),

    KEY("data.train", LIST, data.train, NULL, "files: [{path: F, format: auto}]", KIND(SOURCES)),
    KEY("data.eval", LIST, data.eval, NULL, "files held out; else val_size of train",
        KIND(SOURCES)),
    KEY("data.val_size", FLOAT, data.val_size, "0.02",
        "share of the records held out, chosen by their hash", RANGE(0, 0.5), SAME),
    KEY("data.chat_template", STRING, data.chat_template, NULL,
        "a Jinja file; auto: that of adapter.from, else the model's own", EMPTY("auto")),
    KEY("data.loss_on", ENUM, data.loss_on, "assistant", "turns that are learnt", WORDS(SD_LOSS_ON),
        SAME),
    KEY("data.train_on_eot", ENUM, data.train_on_eot, "turn",
        "turn: the end-of-turn token is learnt", WORDS("turn|none"), SAME),
    KEY("data.sequence_len", INT, data.sequence_len, "2048", "longest record", RANGE(8, 1048576),
        UNIT("tokens"), SAME),
    KEY("data.overlong", ENUM, data.overlong, "error", "a record longer than sequence_len",
        WORDS(SD_OVERLONG), SAME),
    KEY("data.packing", FLAG, data.packing, "true", "several records in a row", SAME),
    KEY("data.shuffle", FLAG, data.shuffle, "true", "a new seeded order every epoch", SAME),
    KEY("data.prepared", STRING, data.prepared, NULL, "prepared file; null: in the run's folder",
        EMPTY("null")),
    KEY("data.on_empty_labels", ENUM, data.on_empty_labels, "error",
        "a record without learnt tokens", WORDS("error|skip"), SAME),
    KEY("data.max_records", INT, data.max_records, NULL, "the first records of the sources only",
        RANGE(1, 1e12), EMPTY("null"), SAME),

    KEY("train.epochs", INT, train.epochs, "1", "passes over the data", RANGE(1, 100000), SAME),
    KEY("train.max_steps", INT, train.max_steps, NULL, "steps, whatever the epochs say",
        RANGE(1, 1e9), EMPTY("null"), SAME),
    KEY("train.batch_tokens", INT, train.batch_tokens, "16384", "of one step at most",
        RANGE(1, 1e9), UNIT("tokens"), EMPTY("null"), SAME),
    KEY("train.batch_rows", INT, train.batch_rows, NULL,
        "rows of one step, instead of batch_tokens", RANGE(1, 1e6), EMPTY("null"), SAME),
    KEY("train.micro_batch_tokens", INT, train.micro_batch_tokens, NULL, "run at once: memory",
        RANGE(1, 1e8), UNIT("tokens"), EMPTY("auto"), SAME),
    KEY("train.optimizer", ENUM, train.optimizer, "adamw", "update rule", WORDS("adamw|adamw_8bit"),
        SAME, UNBUILT("8-bit AdamW is not built; use adamw")),
    KEY("train.learning_rate", FLOAT, train.learning_rate, "2.0e-4", "peak", RANGE(1e-12, 10),
        SAME),
    KEY("train.weight_decay", FLOAT, train.weight_decay, "0", "decoupled", RANGE(0, 10), SAME),
    KEY("train.adam_beta1", FLOAT, train.beta1, "0.9", "of the first moment", RANGE(0, 0.999999),
        SAME),
    KEY("train.adam_beta2", FLOAT, train.beta2, "0.999", "of the second moment", RANGE(0, 0.999999),
        SAME),
    KEY("train.adam_epsilon", FLOAT, train.epsilon, "1e-8", "of the denominator", RANGE(1e-16, 1),
        SAME),
    KEY("train.lr_scheduler", ENUM, train.lr_scheduler, "cosine", "after the warm-up",
        WORDS(SD_SCHEDULES), SAME),
    KEY("train.warmup_ratio", FLOAT, train.warmup_ratio, "0.03", "of the steps", RANGE(0, 1), SAME),
    KEY("train.warmup_steps", INT, train.warmup_steps, NULL, "instead of warmup_ratio",
        RANGE(1, 1e9), EMPTY("null"), SAME),
    KEY("train.min_lr_ratio", FLOAT, train.min_lr_ratio, "0",
        "learning rate at the end over the peak", RANGE(0, 1), SAME),
    KEY("train.max_grad_norm", FLOAT, train.max_grad_norm, "1", "clipping; null: none",
        RANGE(1e-6, 1e9), EMPTY("null"), SAME),
    KEY("train.recompute", ENUM, train.recompute, "auto", "what is computed twice to save memory",
        WORDS(SD_RECOMPUTE), SAME),
    KEY("train.neftune_alpha", FLOAT, train.neftune_alpha, NULL, "noise on embeddings",
        RANGE(1e-6, 1e3), EMPTY("null"), UNBUILT("NEFTune is not built; leave it null")),

    KEY("eval.every", STRING, eval.every, "4/epoch", "steps, or N/epoch", KIND(EVERY), SAME),
    KEY("eval.patience", INT, eval.patience, NULL, "stop after so many evaluations without a gain",
        RANGE(1, 1e6), EMPTY("null"), SAME),
    KEY("eval.keep_best", FLAG, eval.keep_best, "true", "the adapter with the lowest eval loss",
        SAME),

    KEY("checkpoint.every", INT, checkpoint.every, "100", "between checkpoints", RANGE(1, 1e9),
        UNIT("steps")),
    KEY("checkpoint.keep", INT, checkpoint.keep, "3", "newest checkpoints", RANGE(1, 1000)),
    KEY("checkpoint.resume", STRING, checkpoint.resume, "auto",
        "auto, never or a checkpoint's path", KIND(PLAIN)),
    KEY("checkpoint.kernels", ENUM, checkpoint.kernels, "same",
        "same: gone on from where it was made, to the same bytes; any: also on another device or "
        "processor, which rounds otherwise",
        WORDS("same|any")),

    KEY("log.every", INT, log.every, "1", "between lines", RANGE(1, 1e6), UNIT("steps")),
    KEY("log.sinks", LIST, log.sinks, "tty,csv,plot", "where progress goes", KIND(LIST),
        WORDS("tty|csv|jsonl|tensorboard|plot")),

    KEY("draft.index", FLAG, draft.index, "true", "index of the completions, for speculation",
        KIND(PLAIN)),
    KEY("draft.model", STRING, draft.model, NULL, "a draft model to align", EMPTY("null"),
        UNBUILT("aligning a draft model is not built; leave it null")),

    KEY("export", LIST, exports, "peft", "what is written at the end", KIND(LIST),
        WORDS("peft|gguf-lora|merged")),
    KEY("export_verify.prompts", INT, verify.prompts, "32", "records to compare on; 0: none",
        RANGE(0, 100000)),
    KEY("export_verify.max_kl", FLOAT, verify.max_kl, "1.0e-3", "largest mean divergence",
        RANGE(0, 100)),
    KEY("export_verify.top1", FLOAT, verify.top1, "0.999", "least share of equal best tokens",
        RANGE(0, 1)),

    KEY("device.kind", ENUM, device.kind, "auto",
        "where to train; auto: on a CUDA device where one can be used", WORDS(SD_TRAIN_DEVICES),
        SAME),
    KEY("device.index", INT, device.index, "0", "of the CUDA device, or the first of several",
        RANGE(0, 999)),
    KEY("device.count", INT, device.count, "1",
        "CUDA devices that share a step's micro-batches; the bytes are those of one", RANGE(1, 16)),
    KEY("device.threads", INT, device.threads, NULL, "worker threads", RANGE(1, SD_MAX_THREADS),
        EMPTY("auto")),
    KEY("device.memory_limit", STRING, device.memory_limit, NULL,
        "of the process, or of the CUDA device; e.g. 8GiB", KIND(SIZE), EMPTY("auto")),
    {.o.name = NULL}};

// sd_option_set and this room's readers of the table write and read an enum as an int.
_Static_assert(sizeof(sd_train_compute) == sizeof(int) && sizeof(sd_train_device) == sizeof(int) &&
                   sizeof(sd_resume_kernels) == sizeof(int),
               "an enum is not of an int's size");

_Static_assert(sizeof sd_recipe_keys / sizeof sd_recipe_keys[0] <= SD_RECIPE_MAX_KEYS,
               "sd_recipe.mark is too short");
