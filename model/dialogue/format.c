#include "model/dialogue/format.h"

#include <string.h>

// clang-format off
#define WORD(name, word) word,
static const char *const words[] = {SD_TOOL_FORMAT_LIST(WORD)};
#undef WORD
// clang-format on

const char *sd_tool_format_name(sd_tool_format f) {
    return f >= 0 && f < SD_TOOL_FORMAT_COUNT ? words[f] : "?";
}

int sd_tool_format_find(const char *word) {
    for (int i = 0; i < SD_TOOL_FORMAT_COUNT; i++)
        if (strcmp(words[i], word) == 0) return i;
    return -1;
}

int sd_tool_bare_calls(const sd_bare_call **out, sd_tool_format f) {
#define OBJECTS(key)                                                                               \
    {                                                                                              \
        {"{\"name\": \"", "\", \"" key "\": ", "}"},                                               \
            {"{\n  \"name\": \"", "\",\n  \"" key "\": ", "\n}"},                                  \
            {"```json\n{\"name\": \"", "\", \"" key "\": ", "}\n```"},                             \
            {"```json\n{\n  \"name\": \"", "\",\n  \"" key "\": ", "\n}\n```"},                    \
    }
    static const sd_bare_call hermes[] = OBJECTS("arguments"), gemma[] = OBJECTS("parameters"),
                              coder[] = {{"<function=", ">\n", "</function>"}},
                              phi4[] = {{"functools[{\"name\": \"", "\", \"arguments\": ", "}]"}};
#undef OBJECTS
    switch (f) {
    case SD_TOOL_HERMES:
        return *out = hermes, 4;
    case SD_TOOL_GEMMA:
        return *out = gemma, 4;
    case SD_TOOL_QWEN3_CODER:
        return *out = coder, 1;
    case SD_TOOL_PHI4:
        return *out = phi4, 1;
    default:
        return *out = NULL, 0;
    }
}

sd_think_marks sd_think_marks_of(sd_think_style style) {
    switch (style) {
    case SD_THINK_TAGS:
        return (sd_think_marks){"<think>", "</think>"};
    case SD_THINK_BRACKETS:
        return (sd_think_marks){"[THINK]", "[/THINK]"};
    default:
        return (sd_think_marks){0};
    }
}

// The first row whose text stands in the template decides: what is particular comes first.
sd_tool_format sd_tool_format_of_template(const char *source) {
    static const struct {
        const char *text;
        sd_tool_format format;
    } row[] = {
        {"<|channel|>", SD_TOOL_HARMONY},
        {"<function=", SD_TOOL_QWEN3_CODER},
        {"<tool_call>", SD_TOOL_HERMES},
        {"[TOOL_CALLS]", SD_TOOL_MISTRAL},
        {"<|tool_call|>", SD_TOOL_PHI4},
        {"<|tool|>", SD_TOOL_PHI4},
        {"functools", SD_TOOL_PHI4},
        {"<|python_tag|>", SD_TOOL_LLAMA3},
        {"<|start_header_id|>", SD_TOOL_LLAMA3},
        {"<start_of_turn>", SD_TOOL_GEMMA},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        if (strstr(source, row[i].text)) return row[i].format;
    return SD_TOOL_NONE;
}

sd_think_style sd_think_style_of_template(const char *source) {
    if (strstr(source, "<think>") || strstr(source, "</think>")) return SD_THINK_TAGS;
    return strstr(source, "[THINK]") ? SD_THINK_BRACKETS : SD_THINK_NONE;
}

int sd_tool_markers(const char **out, sd_tool_format f, sd_think_style style) {
    static const char *const of[SD_TOOL_FORMAT_COUNT][8] = {
        [SD_TOOL_HERMES] = {"<tool_call>", "</tool_call>"},
        [SD_TOOL_QWEN3_CODER] = {"<tool_call>", "</tool_call>"},
        [SD_TOOL_LLAMA3] = {"<|python_tag|>"},
        [SD_TOOL_MISTRAL] = {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"},
        [SD_TOOL_PHI4] = {"<|tool_call|>", "<|/tool_call|>", "</|tool_call|>"},
        [SD_TOOL_HARMONY] = {"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>",
                             "<|call|>", "<|return|>"},
    };
    int n = 0;
    for (int i = 0; i < 8 && of[f][i]; i++) out[n++] = of[f][i];
    sd_think_marks think = sd_think_marks_of(style);
    if (think.open) out[n++] = think.open, out[n++] = think.close;
    return n;
}
