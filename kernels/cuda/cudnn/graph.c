// Causal attention, forward and backward, as operations of cuDNN's graph API. A graph must have the shape of one of the
// patterns that cuDNN has kernels for: the order of operations and what is virtual are not ours to choose.
#include "kernels/cuda/cudnn/private.h"

#define DESCRIPTOR CUDNN_TYPE_BACKEND_DESCRIPTOR
typedef cudnnBackendDescriptor_t tensor;

typedef struct {
    sd_cudnn_graph *g;
    const sd_cudnn_sdpa *s;
    cudnnBackendDescriptor_t op[40];
    int n_ops;
    int64_t next;           // name of the next virtual tensor
    tensor scale, masked;   // numbers
    tensor q, kt, o, stats; // kt: keys, transposed
} builder;

// ---- tensors

typedef enum { STORED, VIRTUAL, NUMBER } place;

static tensor make_tensor(builder *b, int64_t name, const int64_t dim[4], const int64_t stride[4],
                          cudnnDataType_t type, place where) {
    sd_cudnn_graph *g = b->g;
    const bool yes = true;
    const int64_t alignment = 16;
    tensor t = sd_cudnn_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    sd_cudnn_set(g, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    sd_cudnn_set(g, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim);
    sd_cudnn_set(g, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    sd_cudnn_set(g, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &name);
    sd_cudnn_set(g, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (where == VIRTUAL)
        sd_cudnn_set(g, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
    if (where == NUMBER)
        sd_cudnn_set(g, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    sd_cudnn_finalize(g, t, "a tensor");
    return t;
}

// Rows of `heads` heads, in memory as [B, S, heads, D].
static tensor heads(builder *b, int64_t name, int64_t heads, cudnnDataType_t type, place where) {
    int64_t S = b->s->S, D = b->s->D;
    return make_tensor(b, name, (int64_t[]){b->s->B, heads, S, D},
                       (int64_t[]){S * heads * D, D, heads * D, 1}, type, where);
}
// The same memory with positions last.
static tensor heads_transposed(builder *b, int64_t name, int64_t heads, place where) {
    int64_t S = b->s->S, D = b->s->D;
    return make_tensor(b, name, (int64_t[]){b->s->B, heads, D, S},
                       (int64_t[]){S * heads * D, D, 1, heads * D}, CUDNN_DATA_BFLOAT16, where);
}
// A number for each query and key. None is ever stored.
static tensor scores(builder *b, cudnnDataType_t type) {
    int64_t H = b->s->H, S = b->s->S;
    return make_tensor(b, b->next++, (int64_t[]){b->s->B, H, S, S},
                       (int64_t[]){H * S * S, S * S, S, 1}, type, VIRTUAL);
}
static tensor scores_transposed(builder *b) {
    int64_t H = b->s->H, S = b->s->S;
    return make_tensor(b, b->next++, (int64_t[]){b->s->B, H, S, S},
                       (int64_t[]){H * S * S, S * S, 1, S}, CUDNN_DATA_BFLOAT16, VIRTUAL);
}
// A number for each query.
static tensor rows(builder *b, int64_t name, place where) {
    int64_t H = b->s->H, S = b->s->S;
    return make_tensor(b, name, (int64_t[]){b->s->B, H, S, 1}, (int64_t[]){H * S, S, 1, 1},
                       CUDNN_DATA_FLOAT, where);
}
static tensor number(builder *b, int64_t name) {
    static const int64_t one[4] = {1, 1, 1, 1};
    return make_tensor(b, name, one, one, CUDNN_DATA_FLOAT, NUMBER);
}

// ---- operations

static void add_op(builder *b, cudnnBackendDescriptor_t op, const char *what) {
    sd_cudnn_finalize(b->g, op, what);
    if (b->g->st == SD_OK) b->op[b->n_ops++] = op;
}

static void matmul(builder *b, tensor x, tensor y, tensor z) {
    sd_cudnn_graph *g = b->g;
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = sd_cudnn_new(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    sd_cudnn_set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    sd_cudnn_finalize(g, how, "a product's type");
    cudnnBackendDescriptor_t op = sd_cudnn_new(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, DESCRIPTOR, 1, &x);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, DESCRIPTOR, 1, &y);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, DESCRIPTOR, 1, &z);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, DESCRIPTOR, 1, &how);
    add_op(b, op, "a product");
}

// z <- mode(x, y), y NULL where it takes one; `mask` of a selection.
static void pointwise_masked(builder *b, cudnnPointwiseMode_t mode, cudnnDataType_t precision,
                             tensor x, tensor y, tensor mask, int64_t axis, tensor z) {
    sd_cudnn_graph *g = b->g;
    cudnnBackendDescriptor_t how = sd_cudnn_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    sd_cudnn_set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    sd_cudnn_set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    if (mode == CUDNN_POINTWISE_GEN_INDEX)
        sd_cudnn_set(g, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    sd_cudnn_finalize(g, how, "a pointwise operation's mode");
    cudnnBackendDescriptor_t op = sd_cudnn_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, DESCRIPTOR, 1, &how);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, DESCRIPTOR, 1, &x);
    if (y) sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, DESCRIPTOR, 1, &y);
    if (mask) sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, DESCRIPTOR, 1, &mask);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, DESCRIPTOR, 1, &z);
    add_op(b, op, "a pointwise operation");
}
static void pointwise(builder *b, cudnnPointwiseMode_t mode, tensor x, tensor y, tensor z) {
    pointwise_masked(b, mode, CUDNN_DATA_FLOAT, x, y, NULL, 0, z);
}

// z <- x over the axes where z has one element.
static void reduce(builder *b, cudnnReduceTensorOp_t how_reduced, tensor x, tensor z) {
    sd_cudnn_graph *g = b->g;
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = sd_cudnn_new(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    sd_cudnn_set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1,
                 &how_reduced);
    sd_cudnn_set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    sd_cudnn_finalize(g, how, "a reduction's operator");
    cudnnBackendDescriptor_t op = sd_cudnn_new(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, DESCRIPTOR, 1, &x);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, DESCRIPTOR, 1, &z);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, DESCRIPTOR, 1, &how);
    add_op(b, op, "a reduction");
}

static void reshape(builder *b, tensor x, tensor z) {
    sd_cudnn_graph *g = b->g;
    cudnnBackendDescriptor_t op = sd_cudnn_new(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, DESCRIPTOR, 1, &x);
    sd_cudnn_set(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, DESCRIPTOR, 1, &z);
    add_op(b, op, "a reshape");
}

// ---- attention

// q k^T * scale, and minus infinity where the key lies behind the query.
static tensor masked_scores(builder *b) {
    tensor product = scores(b, CUDNN_DATA_FLOAT), scaled = scores(b, CUDNN_DATA_FLOAT),
           row = scores(b, CUDNN_DATA_INT32), column = scores(b, CUDNN_DATA_INT32),
           seen = scores(b, CUDNN_DATA_BOOLEAN), out = scores(b, CUDNN_DATA_FLOAT);
    matmul(b, b->q, b->kt, product);
    pointwise(b, CUDNN_POINTWISE_MUL, product, b->scale, scaled);
    pointwise_masked(b, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_INT32, scaled, NULL, NULL, 2, row);
    pointwise_masked(b, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_INT32, scaled, NULL, NULL, 3, column);
    pointwise_masked(b, CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN, row, column, NULL, 0, seen);
    pointwise_masked(b, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, scaled, b->masked, seen, 0,
                     out);
    return out;
}

// o <- softmax(scores) v; stats <- the largest score of a row + log of the sum of exponentials beside it.
static void forward(builder *b) {
    tensor v = heads(b, SD_CUDNN_V, b->s->G, CUDNN_DATA_BFLOAT16, STORED);
    tensor s = masked_scores(b), lowered = scores(b, CUDNN_DATA_FLOAT),
           e = scores(b, CUDNN_DATA_FLOAT), p = scores(b, CUDNN_DATA_BFLOAT16),
           most = rows(b, b->next++, VIRTUAL), sum = rows(b, b->next++, VIRTUAL),
           log_sum = rows(b, b->next++, VIRTUAL);
    reduce(b, CUDNN_REDUCE_TENSOR_MAX, s, most);
    pointwise(b, CUDNN_POINTWISE_SUB, s, most, lowered);
    pointwise(b, CUDNN_POINTWISE_EXP, lowered, NULL, e);
    reduce(b, CUDNN_REDUCE_TENSOR_ADD, e, sum);
    pointwise(b, CUDNN_POINTWISE_LOG, sum, NULL, log_sum);
    pointwise(b, CUDNN_POINTWISE_ADD, most, log_sum, b->stats);
    pointwise(b, CUDNN_POINTWISE_DIV, e, sum, p);
    matmul(b, p, v, b->o);
}

// z of keys or values <- x^T y, summed over the query heads of each head of keys.
static void product_of_keys(builder *b, tensor x, tensor y, int64_t name) {
    tensor z = heads(b, name, b->s->G, CUDNN_DATA_BFLOAT16, STORED);
    if (b->s->G == b->s->H) {
        matmul(b, x, y, z);
        return;
    }
    tensor whole = heads(b, b->next++, b->s->H, CUDNN_DATA_BFLOAT16, VIRTUAL);
    matmul(b, x, y, whole);
    reduce(b, CUDNN_REDUCE_TENSOR_ADD, whole, z);
}

// p <- exp(scores - stats); dv <- p^T do; ds <- p (do v^T - sum(do o)) scale; dk <- ds^T q; dq <- ds k.
static void backward(builder *b) {
    const int64_t H = b->s->H, G = b->s->G;
    tensor vt = heads_transposed(b, SD_CUDNN_V, G, STORED),
           d_o = heads(b, SD_CUDNN_DO, H, CUDNN_DATA_BFLOAT16, STORED),
           dq = heads(b, SD_CUDNN_DQ, H, CUDNN_DATA_BFLOAT16, STORED),
           dq_sum = heads(b, SD_CUDNN_DQ_SUM, H, CUDNN_DATA_FLOAT, STORED),
           sums = rows(b, SD_CUDNN_SUMS, STORED), one = number(b, SD_CUDNN_ONE),
           products = heads(b, b->next++, H, CUDNN_DATA_FLOAT, VIRTUAL),
           sum = rows(b, b->next++, VIRTUAL);
    pointwise(b, CUDNN_POINTWISE_MUL, d_o, b->o, products);
    reduce(b, CUDNN_REDUCE_TENSOR_ADD, products, sum);
    pointwise(b, CUDNN_POINTWISE_MUL, sum, one, sums);

    tensor s = masked_scores(b), lowered = scores(b, CUDNN_DATA_FLOAT),
           p = scores(b, CUDNN_DATA_FLOAT), pt = scores_transposed(b),
           dp = scores(b, CUDNN_DATA_FLOAT), centred = scores(b, CUDNN_DATA_FLOAT),
           weighted = scores(b, CUDNN_DATA_FLOAT), ds = scores(b, CUDNN_DATA_FLOAT),
           dst = scores_transposed(b), k = heads(b, b->next++, G, CUDNN_DATA_BFLOAT16, VIRTUAL);
    pointwise(b, CUDNN_POINTWISE_SUB, s, b->stats, lowered);
    pointwise(b, CUDNN_POINTWISE_EXP, lowered, NULL, p);
    reshape(b, p, pt);
    product_of_keys(b, pt, d_o, SD_CUDNN_DV);
    matmul(b, d_o, vt, dp);
    pointwise(b, CUDNN_POINTWISE_SUB, dp, sums, centred);
    pointwise(b, CUDNN_POINTWISE_MUL, centred, p, weighted);
    pointwise(b, CUDNN_POINTWISE_MUL, weighted, b->scale, ds);
    reshape(b, ds, dst);
    product_of_keys(b, dst, b->q, SD_CUDNN_DK);
    reshape(b, b->kt, k);
    matmul(b, ds, k, dq_sum);
    pointwise(b, CUDNN_POINTWISE_IDENTITY, dq_sum, NULL, dq);
}

cudnnBackendDescriptor_t sd_cudnn_sdpa_graph(sd_cudnn_graph *g, const sd_cudnn_sdpa *shape) {
    builder b = {.g = g, .s = shape, .next = SD_CUDNN_VIRTUAL};
    b.q = heads(&b, SD_CUDNN_Q, shape->H, CUDNN_DATA_BFLOAT16, STORED);
    b.kt = heads_transposed(&b, SD_CUDNN_K, shape->G, STORED);
    b.o = heads(&b, SD_CUDNN_O, shape->H, CUDNN_DATA_BFLOAT16, STORED);
    b.stats = rows(&b, SD_CUDNN_STATS, STORED);
    b.scale = number(&b, SD_CUDNN_SCALE);
    b.masked = number(&b, SD_CUDNN_MASKED);
    if (shape->backward)
        backward(&b);
    else
        forward(&b);
    cudnnBackendDescriptor_t graph = sd_cudnn_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    sd_cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, DESCRIPTOR, b.n_ops, b.op);
    sd_cudnn_finalize(g, graph, "the graph of attention");
    return g->st == SD_OK ? graph : NULL;
}
