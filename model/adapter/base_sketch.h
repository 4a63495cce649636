// What a model's weights look like in a few numbers, so that an adapter can say later how far a
// base is from the one it was trained on: the same model as a 4-bit and as a 16-bit file has two
// hashes and one sketch, up to the rounding.
//
// Each linear map W gives one value, <W, S> / sqrt(values) with fixed random signs S over at most
// 64 of its rows, and its root mean square. The difference of two such values has the variance of
// the maps' difference (Achlioptas 2003), so all maps together give its size to a few percent. The
// norms, which no quantiser touches, are compared bit for bit as bf16.
#pragma once

#include "model/model.h"

enum { SD_SKETCH_MAX = 1 << 20 }; // characters of the text form

/// *text <- the sketch as one line of ASCII, malloc'ed.
sd_status sd_base_sketch(char **text, const sd_model *m, sd_error *err);

typedef struct {
    bool known;         // false: text is no sketch of a model of this shape
    bool same_norms;    //
    bool same_type;     // most of the linear maps stand in the same type
    double difference;  // |W' - W| / |W| over all maps
    char type[16];      // of the sketched model
    const char *m_type; // of m
} sd_sketch_difference;

/// text [len] against m.
sd_status sd_base_sketch_compare(sd_sketch_difference *out, const char *text, size_t len,
                                 const sd_model *m, sd_error *err);
