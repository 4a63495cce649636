#!/usr/bin/env bash
# Planted errors in the CUDA kernels, their launchers and the emulator, one at a time: each must make a test fail, in the rung that is named.
# Nothing in the checkout changes.
#
#   tests/cuda/planted_bugs.sh [WORD]       only those whose names contain the word; needs cuda_tests of presets release, asan, tsan and
#                                           msan, and cuda_runtime_tests. Those of rungs ptx, runtime and msan are skips where nvcc or clang++-14 is missing
#
# TAP on standard output. A test that no planted error can make fail proves nothing; this is the proof that these can.
set -uo pipefail
cd "$(dirname "$0")/../.."
word=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(-std=c++17 -mavx2 -mfma -ffp-contract=off -fno-math-errno -O1 -w -Itests/cuda/emu)
nvcc=$(sed -nE 's/^SPECDEC_NVCC:FILEPATH=(\/.*)/\1/p' build/release/CMakeCache.txt)
failed=0 number=0 turn=0

# translate FOLDER UNIT: what a kernel file of the folder is as PTX, in FOLDER/translated.cpp.
translate() {
  "$nvcc" -std=c++17 -O3 -fmad=false -I"$1" -I. -arch=compute_80 -ptx "$1/$2" -o "$1/unit.ptx" && tests/cuda/ptx/ptx2cpp.py "$1/unit.ptx" "$1/translated.cpp"
}

# plant NAME FILE SED RUNG UNIT TEST SENTENCE: the file with the edit; UNIT, which is the file or includes it, is compiled ahead of the library.
# RUNG: emu (forward, reverse and five random orders), asan, tsan, msan; ptx, where UNIT's source stays as it is for g++ and the edit is nvcc's alone.
plant() {
  local name=$1 file=$2 edit=$3 rung=$4 unit=$5 test=$6 sentence=$7 own=$work/src build=build/release extra=() sources status compiler=${CXX:-c++}
  [[ $name == *"$word"* ]] || return
  if [ "$rung" = ptx ] && [ -z "$nvcc" ]; then
    [ $turn = 1 ] || echo "ok - planted: $name # SKIP nvcc is not installed"
    return
  fi
  if [ "$rung" = msan ] && ! command -v clang++-14 >/dev/null; then
    [ $turn = 1 ] || echo "ok - planted: $name # SKIP clang++-14 is not installed"
    return
  fi
  number=$((number + 1))
  ((number % 2 == turn)) || return
  rm -rf "$own"
  mkdir -p "$own/$(dirname "$file")" "$own/$(dirname "$unit")"
  [ "$unit" = "$file" ] || cp "$unit" "$own/$unit"
  sed -E "$edit" "$file" >"$own/$file"
  if cmp -s "$file" "$own/$file"; then
    echo "not ok - planted: $name: the edit no longer finds its place in $file"
    failed=1
    return
  fi
  [ "$rung" = asan ] && build=build/asan extra=(-fsanitize=address,undefined -fno-sanitize-recover=all -g)
  [ "$rung" = tsan ] && build=build/tsan extra=(-fsanitize=thread -g)
  [ "$rung" = msan ] && build=build/msan extra=(-fsanitize=memory -g) compiler=clang++-14
  sources=("$own/$unit")
  if [ "$rung" = ptx ]; then
    sources=("$own/translated.cpp" tests/cuda/ptx/ptx.cpp)
    translate "$own" "$unit" 2>"$work/log"
  fi
  if ! "$compiler" "${flags[@]}" "${extra[@]}" -I"$own" -I. -xc++ "${sources[@]}" "tests/cuda/$test.cpp" -xnone \
    "$build"/tests/cuda/libcuda_kernels_emu.a "$build"/tests/cuda/libcuda_emu.a "$build"/tests/cuda/libcuda_host.a "$build"/tests/cuda/libcuda_host_real.a -o "$work/test" 2>"$work/log"; then
    echo "not ok - planted: $name: does not build"
    tail -3 "$work/log"
    failed=1
    return
  fi
  EMU_ORDERS=5 timeout 300 "$work/test" "$sentence" >"$work/out" 2>&1
  status=$?
  if [ $status = 1 ] && grep -q '^not ok' "$work/out"; then
    echo "ok - planted: $name ($rung: $(grep -m1 -oE 'emu: .{0,60}|(Address|Thread|Memory)Sanitizer: [a-z-]+( race)?|runtime error: .{0,40}|^# .{0,60}' "$work/out" | tr '#' ' '))"
  else
    echo "not ok - planted: $name: no test fails (status $status)"
    failed=1
  fi
}

# plant_host NAME FILE SED TEST SENTENCE: the same in a C file of the library, linked ahead of it as the test itself is linked.
plant_host() {
  local name=$1 file=$2 edit=$3 test=$4 sentence=$5 own=$work/src status
  [[ $name == *"$word"* ]] || return
  number=$((number + 1))
  ((number % 2 == turn)) || return
  rm -rf "$own"
  mkdir -p "$own/$(dirname "$file")"
  sed -E "$edit" "$file" >"$own/$file"
  if cmp -s "$file" "$own/$file"; then
    echo "not ok - planted: $name: the edit no longer finds its place in $file"
    failed=1
    return
  fi
  if ! { "${CC:-cc}" -std=c11 -D_GNU_SOURCE -ffp-contract=off -fPIC -O1 -w -I. -c "$own/$file" -o "$work/unit.o" &&
    (cd build/release/tests/cuda && eval "$(sed -E "s#-o [^ ]+#-o $work/test $work/unit.o#" "CMakeFiles/$test.dir/link.txt")"); } 2>"$work/log"; then
    echo "not ok - planted: $name: does not build"
    tail -3 "$work/log"
    failed=1
    return
  fi
  timeout 300 "$work/test" "$sentence" >"$work/out" 2>&1
  status=$?
  if [ $status = 1 ] && grep -q '^not ok' "$work/out"; then
    echo "ok - planted: $name (emu: $(grep -m1 -oE 'emu: .{0,60}|^# .{0,60}' "$work/out" | tr '#' ' '))"
  else
    echo "not ok - planted: $name: no test fails (status $status)"
    failed=1
  fi
}

# plant_plugin NAME FILE SED UNIT TEST SENTENCE: the plugin with the edit, UNIT compiled by nvcc, under a program of the rung runtime.
plant_plugin() {
  local name=$1 file=$2 edit=$3 unit=$4 test=$5 sentence=$6 own=$work/src folder=$work/plugin built=build/release/tests/cuda status id object
  [[ $name == *"$word"* ]] || return
  if [ -z "$nvcc" ]; then
    [ $turn = 1 ] || echo "ok - planted: $name # SKIP nvcc is not installed"
    return
  fi
  number=$((number + 1))
  ((number % 2 == turn)) || return
  rm -rf "$own" "$folder"
  mkdir -p "$own/$(dirname "$file")" "$own/$(dirname "$unit")" "$folder"
  [ "$unit" = "$file" ] || cp "$unit" "$own/$unit"
  sed -E "$edit" "$file" >"$own/$file"
  if cmp -s "$file" "$own/$file"; then
    echo "not ok - planted: $name: the edit no longer finds its place in $file"
    failed=1
    return
  fi
  id=$(grep -ohE 'SD_CUDA_BUILD_ID=[0-9a-f]{64}' $built/CMakeFiles/cuda_emulated_device.dir/flags.make)
  object=$(basename "${unit%.cu}").o
  if ! { "$nvcc" -std=c++17 -O3 -fmad=false -I"$own" -I. -D"$id" -Xcompiler -fPIC -arch=sm_80 -c "$own/$unit" -o "$work/$object" &&
    "${CXX:-c++}" -shared -o "$folder/libspecdec_cuda.so" "$work/$object" $(ls build/release/kernels/cuda/*.o | grep -v "/$object$") \
      $built/gpu/libcuda_runtime_emu.so -Wl,-rpath,"$PWD/$built/gpu" -ldl && cp "build/release/cuda_runtime_tests/runtime_$test" "$folder/"; } 2>"$work/log"; then
    echo "not ok - planted: $name: does not build"
    tail -3 "$work/log"
    failed=1
    return
  fi
  LD_LIBRARY_PATH=build/release/cuda_runtime_tests timeout 300 "$folder/runtime_$test" "$sentence" >"$work/out" 2>&1
  status=$?
  if [ $status = 1 ] && grep -q '^not ok' "$work/out"; then
    echo "ok - planted: $name (runtime: $(grep -m1 -oE '(emu|gpu): .{0,60}|^# .{0,60}' "$work/out" | tr '#' ' '))"
  else
    echo "not ok - planted: $name: no test fails (status $status)"
    failed=1
  fi
}

k=kernels/cuda t=kernels/cuda/train b=model/infer/cuda w=model/cuda p=trainer/pass/cuda
plants() {
# ---- barriers and races
plant "a sum over a block is read before all have written it" $k/scalar.cuh 's/^    __syncthreads\(\);$//' emu $k/rows.cu test_rows "rmsnorm equals"
plant "the warps' sums of a product are read before they are written" $k/matmul.cu 's/^    __syncthreads\(\);$//' emu $k/matmul.cu test_matmul "beyond sixteen"
plant "queries are read before they are written" $k/attention.cu '0,/^    __syncthreads\(\);$/s///' emu $k/attention.cu test_attention "leave some"
plant "the warps of a split are merged before they are done" $k/attention.cu '/float \*mine = /,/ascending order/ s/^    __syncthreads\(\);$//' emu $k/attention.cu test_attention "leave some"
plant "a stage is overwritten while lanes still read it" $k/attention.cu 's/__syncwarp\(\); \/\/ before.*$//' tsan $k/attention.cu test_attention "leave some"
plant "a lane reads keys that another lane has not waited for" $k/attention.cu 's/^ {12}__syncwarp\(\);$//' emu $k/attention.cu test_attention "every instance"
plant "a barrier stands in a branch" $k/scalar.cuh 's/^    __syncthreads\(\);$/    if (threadIdx.x % 64 < 32) __syncthreads();/' emu $k/rows.cu test_rows "rmsnorm equals"
plant "a shuffle of all lanes stands in a branch" $k/rope.cu 's/^    return 1\.0f \/ sqrtf\(sd_warp_sum\(sum\) /    if (lane >= D \/ 8) return 0; return 1.0f \/ sqrtf(sd_warp_sum(sum) /' emu $k/rope.cu test_rope "QK-norm"
# ---- copies that arrive late
plant "a stage is read before its copies have arrived" $k/attention.cu 's/sd_copy_wait<STAGES - 1>/sd_copy_wait<STAGES>/' emu $k/attention.cu test_attention "every instance"
plant "the last copies are not waited for" $k/attention.cu 's/sd_copy_wait<0>\(\);//' emu $k/attention.cu test_attention "every instance"
plant "a group of copies is not closed" $k/attention.cu 's/sd_copy_commit\(\);//' emu $k/attention.cu test_attention "every instance"
# ---- bounds
plant "a norm reads one value beyond its row" $k/scalar.cuh 's/c < C; c \+= threads\) sum/c <= C; c += threads) sum/' asan $k/rows.cu test_rows "rmsnorm equals"
plant "a sum writes one element too many" $k/rows.cu 's/if \(i < n\) x/if (i <= n) x/' emu $k/rows.cu test_rows "add adds"
plant "a gate's last block goes beyond the row" $k/rows.cu 's/if \(f >= F\) return;//' emu $k/rows.cu test_rows "the gates"
plant "rows of x that are not there are read" $k/matmul.cu 's/n < a\.N && k < a\.K \?/true ?/' emu $k/matmul.cu test_matmul "beyond sixteen"
plant "outputs beyond M are written" $k/matmul.cu 's/if \(m >= a\.M \|\| n >= a\.N\)/if (n >= a.N)/' emu $k/matmul.cu test_matmul "equals the sum"
plant "a row of the embedding that is not there is looked up" $k/embedding.cu 's/m >= 0 && m < a\.w\.M/true/' emu $k/embedding.cu test_matmul "an embedding"
plant "dequantised rows beyond the last one are written" $k/embedding.cu 's/if \(row >= rows\) return;//' emu $k/embedding.cu test_matmul "dequantised rows"
plant "dequantised rows are those of the tile before" $k/embedding.cu 's/\(m0 \+ row\) \/ SD_CUDA_TILE_M/row \/ SD_CUDA_TILE_M/' emu $k/embedding.cu test_matmul "dequantised rows"
plant "an adapter of a smaller rank is read as the largest" $k/lora.cu 's/if \(r >= a\.r\) return;.*$//' emu $k/lora.cu test_lora "each row"
plant "a row without an adapter takes one" $k/lora.cu 's/if \(m >= M \|\| which\[n\] < 0\)/if (m >= M)/' asan $k/lora.cu test_lora "each row"
plant "what lies before a window is looked at" $k/attention.cu 's/p >= from && p < to && col/p < to \&\& col/' emu $k/attention.cu test_attention "a window"
# ---- memory that nobody wrote
plant "positions beyond the last are copied as they are" $k/attention.cu 's/p >= from && p < to && col < x\.a\.D/p >= from \&\& col < x.a.D/' emu $k/attention.cu test_attention "every instance"
plant "a part of a warp's sums is not written" $k/matmul.cu 's/for \(int i = 0; i < 8; i\+\+\)$/for (int i = 0; i < 7; i++)/' emu $k/matmul.cu test_matmul "beyond sixteen"
# ---- fragments
plant "two registers of A are exchanged" $k/matmul.cu 's/sd_add_bf16x2\(\(u >> \(4 \* i\)/sd_add_bf16x2((u >> (4 * (i == 1 ? 2 : i == 2 ? 1 : i))/' emu $k/matmul.cu test_matmul "equals the sum"
plant "the sign of an int8 code is lost" $k/matmul.cu 's/\(u & 0x00800080u\) \| 0xc300c300u/0xc300c300u/' emu $k/matmul.cu test_matmul "equals the sum"
plant "values are loaded without transposing" $k/flash.cuh 's/sd_ldmatrix_transposed\(/sd_ldmatrix(/' emu $k/attention.cu test_attention "every instance"
plant "the halves of 16 keys are exchanged" $k/flash.cuh 's/b\[0\]\[0\]\[1\] = r\[1\], b\[1\]\[0\]\[0\] = r\[2\]/b[0][0][1] = r[2], b[1][0][0] = r[1]/' emu $k/attention.cu test_attention "every instance"
plant "a pair of bf16 is packed the wrong way round" $k/dialect.cuh 's/return sd_one_bf16\(lo\) \| sd_one_bf16\(hi\) << 16/return sd_one_bf16(hi) | sd_one_bf16(lo) << 16/' emu $k/attention.cu test_attention "every instance"
plant "an fp32 value has two terms" $k/matmul.cu '/struct RealF32/,/};/ s/TERMS = 3/TERMS = 2/' emu $k/matmul.cu test_matmul "to its last bit"
plant "the emulator's mma has B's rows in A's order" tests/cuda/emu/warp.cpp 's/B\[2 \* t \+ 8 \* r\]\[g\] = low/B[2 * t + 4 * r][g] = low/' emu tests/cuda/emu/warp.cpp test_emu "by the ISA"
# ---- values
plant "a minimum is added where it is taken off" $k/matmul.cu 's/m\[0\] = -\(sd_half_value/m[0] = (sd_half_value/' emu $k/matmul.cu test_matmul "equals the sum"
plant "a row of eight takes its neighbour's scale" $k/matmul.cu 's/fmaf\(d\[i \/ 2\], part/fmaf(d[0 * i], part/' emu $k/matmul.cu test_matmul "equals the sum"
plant "a product's sums depend on how many rows there are" $k/matmul.cu 's/y \+= partial\[\(group \* SPLIT \+ w\)/y += partial[(group * SPLIT + (w + a.N) % SPLIT)/' emu $k/matmul.cu test_matmul "same bits for every n"
plant "a key is turned as the position behind it" $k/rope.cu 's/const int pos = a\.pos\[n\];/const int pos = a.pos[n] + (head >= a.H);/' emu $k/rope.cu test_rope "every scaling"
plant "pairs that are interleaved are taken for halves" $k/rope.cu 's/a\.interleaved \? 2 \* i : i/i/' emu $k/rope.cu test_rope "every scaling"
plant "a row sees the position behind it" $k/attention.cu 's/l->to = x\.a\.pos\[l->row\] \+ 1;/l->to = x.a.pos[l->row] + 2;/' emu $k/attention.cu test_attention "leave some"
plant "a line's maximum is that of its first lane" $k/flash.cuh 's/top = fmaxf\(top, __shfl_xor_sync\(SD_ALL_LANES, top, 2\)\);//' emu $k/attention.cu test_attention "every instance"
plant "splits are merged without their maxima" $k/attention.cu 's/sum = fmaf\(p\[d\], sd_exp2\(p\[D \+ 1\] - top\), sum\)/sum += p[d]/' emu $k/attention.cu test_attention "splits of 512"
plant "a sink is forgotten" $k/attention.cu 's/total = sd_exp2\(sink - top\)/total = 0/' emu $k/attention.cu test_attention "a sink"
plant "a key's channels are not levelled" $k/rope.cu 's/size \? v \/ size\[i\] : v/v/' emu $k/rope.cu test_rope "codes are the CPU"
plant "a query is not multiplied by what its keys are divided by" $k/rope.cu 's/size \? v \* size\[i\] : v/v/' emu $k/rope.cu test_rope "codes are the CPU"
plant "a value's scale is its key's" $k/attention.cu 's/all\[SIDE \+ r\]/all[r]/' emu $k/attention.cu test_attention "under their scales"
plant "codes beyond the last position count" $k/attention.cu 's/const bool is = p0 \+ r >= from \&\& p0 \+ r < to;/const bool is = true;/; s/s\[h\]\[i\] == -INFINITY \? s\[h\]\[i\] : s/s/' emu $k/attention.cu test_attention "has for a scale"
plant "codes are overwritten while lanes still read them" $k/attention.cu 's/__syncwarp\(\); \/\/ before the next codes.*$//' emu $k/attention.cu test_attention "under their scales"
plant "codes are read before they have arrived" $k/attention.cu '/^        if \(CODES\) \{$/,/expand/ s/sd_copy_wait<0>/sd_copy_wait<1>/' emu $k/attention.cu test_attention "under their scales"
plant "a token's noise is that of the position before" $k/sample.cu 's/c1 = p\.position,/c1 = p.position - 1,/' emu $k/sample.cu test_sample "every truncation"
plant "top-k keeps one token too many" $k/sample.cu 's/cut\(r, p->top_k, false\)/cut(r, p->top_k + 1, false)/' emu $k/sample.cu test_sample "every truncation"
plant "ties behind the cut are kept" $k/sample.cu 's/r->last = below \+ 1;/r->last = r->V;/' emu $k/sample.cu test_sample "ties go"
plant "the second allowed set is not asked" $k/sample.cu 's/\(!also \|\| \(also\[t/(true || (also[t/' emu $k/sample.cu test_sample "not allowed"
plant "NaN passes for a small logit" $k/sample.cu 's/if \(x != x\) bad \+= 1;//' emu $k/sample.cu test_sample "no law"
plant "sums of a pass are written over before all have read them" $k/sample.cu 's/^    __syncthreads\(\); \/\/ part is used again$//' tsan $k/sample.cu test_sample "every truncation"
plant "a rejected draft counts" $k/sample.cu 's/picked\[first \+ j\] == token/picked[first + j] >= token/' emu $k/sample.cu test_sample "longest prefix"
# ---- the backend: waits, memory, what goes to the device
plant_host "a step that wants nothing is not waited for" $b/forward.c 's/^        st = sd_cuda_status\(cx->dev, cx->dev->stream_wait\(cx->stream\), "a step", err\);/        st = SD_OK;/' test_infer_rows "want nothing"
plant_host "logits are handed out before they have come" $b/pick.c 's/CUDA_TRY\(cx->dev->stream_wait\(cx->stream\), "a step"\);//' test_infer_rows "sampler, on the device"
plant_host "half of the host's memory is filled while it is read" $w/upload.c 's/u->dev->event_wait\(u->done\[u->at\]\)/0/' test_infer_memory "slices and waves"
plant_host "memory of copies is given back before they are done" $w/upload.c 's/^    \(void\)u->dev->stream_wait.*$//' test_infer_memory "is refused ends"
plant_host "a row has the pages up to its own position alone" $b/step.c 's/row\[i\]->kv->pages < ld \? row\[i\]->kv->pages : ld/row[i]->pos \/ SD_KV_PAGE + 1/' test_infer_rows "alone and in chunks"
plant_host "rows that read together are counted from the step's first" $b/step.c 's/\{n0 - c->n0, n\}/{n0, n}/' test_infer_rows "share a step"
plant_host "a chunk reads the pages of another's memory" $b/step.c 's/c->pages != pages_of\(r\) \|\| //' test_infer_rows "beside others"
plant_host "partial results have room for the first chunk alone" $b/step.c 's/if \(bytes > most\) most = bytes/if (!most) most = bytes/' test_infer_rows "leave each other"
plant_host "rows that go on are taken from their places in the list" $b/forward.c 's/= \(size_t\)\(cx->kept_row\[k\] - cx->row\[0\]\)/= (size_t)k/' test_infer_rows "beside others"
plant_host "more places lose the adapters that have some" $b/adapters.c 's/i < m->n_linears \&\& t->places; i\+\+/0;/' test_infer_memory "goes with it"
plant_host "an adapter that is gone keeps its memory" $b/adapters.c 's/e->gone \|= e->generation == generation/(void)e/' test_infer_memory "goes with it"
plant_host "the rank is that of the step's first adapter" $b/forward.c 's/k < cx->n_used; k\+\+/k < 1; k++/' test_infer_rows "beside others"
plant_host "the device picks what it cannot" $b/step.c 's/pick \&\& !sd_cuda_picks\(pick\)/false/' test_infer_rows "sampler, on the device"
plant_host "a token is picked for the position before" $b/pick.c 's/\(uint32_t\)r->pos \+ 1/(uint32_t)r->pos/' test_infer_rows "sampler, on the device"
plant_host "scales lie where the slice has them" $w/weights.c 's/to \+= all\[i\]/to += part[i]/' test_infer_memory "slices and waves"
plant_host "the pages that steps were timed with stay" $b/step_cost.c 's/sd_kv_close\(p\.kv\);//' test_infer_memory "are timed"
plant_host "a copied page of codes lacks its scales" $b/kv_memory.c 's/if \(p->codes \&\& !status\)/if (false)/' test_infer_memory "their kind of context"
plant_host "all layers level their keys as the first does" $b/forward.c 's/cx->key_scale \+ \(size_t\)l \* kv/cx->key_scale/' test_infer "int8 keys"
plant_host "keys of all layers are the first one's" $b/kv_memory.c 's/\.layer = p->layer\[l\]/.layer = p->layer[0]/' test_infer "each architecture"
# ---- training
plant "a norm's gradient lacks what its factor does" $t/rows_backward.cu 's/-\(pull \* x\[c\]\)/0.0f/' emu $t/rows_backward.cu train/test_train_rows "through a norm"
plant "a norm's gradient overwrites the residual stream's" $t/rows_backward.cu 's/\*p = add \? \*p \+ v : v/*p = v + 0 * add/' emu $t/rows_backward.cu train/test_train_rows "through a norm"
plant "two sums over a block share their room" $t/rows_backward.cu 's/\(dot, part_dot\)/(dot, part)/' tsan $t/rows_backward.cu train/test_train_rows "through a norm"
plant "the slope of gelu lacks its cubic part" $t/rows_backward.cu 's/fmaf\(3\.0f, third, linear\)/linear/' emu $t/rows_backward.cu train/test_train_rows "through the gates"
plant "a gradient turns on where it should turn back" $t/rope_train.cu 's/ - t\.d\[i - step\]/ + t.d[i - step]/' emu $t/rope_train.cu train/test_train_rows "heads turn"
plant "values turn as keys do" $t/rope_train.cu 's/p\.turns \? a\.rot : 0/a.rot/' emu $t/rope_train.cu train/test_train_rows "heads turn"
plant "a row sees what lies before its segment" $t/flash_tiles.cuh 's/row \+ 1 - window : begin/row + 1 - window : 0/' emu $t/flash_forward.cu train/test_train_flash "packed side by side"
plant "keys are overwritten while another warp reads them" $t/flash_forward.cu 's/__syncthreads\(\); \/\/ before.*$//' tsan $t/flash_forward.cu train/test_train_flash "every length"
plant "keys are read before their copies have arrived" $t/flash_forward.cu 's/sd_copy_wait<P::STAGES - 1>/sd_copy_wait<P::STAGES>/' emu $t/flash_forward.cu train/test_train_flash "every length"
plant "the log of a row's sum is forgotten" $t/flash_forward.cu 's/logf\(o\.total\[l\]\)/0.0f/' emu $t/flash_forward.cu train/test_train_flash "every length"
plant "a tile ends a row too late" $t/flash_tiles.cuh 's/last = t\.first \+ t\.rows;/last = t.first + t.rows + 1;/' emu $t/flash_forward.cu train/test_train_flash "every length"
plant "slopes lack delta" $t/flash_gradient.cuh 's/\*p \* \(\*ds - delta\)/*p * *ds/' emu $t/flash_backward.cu train/test_train_flash "every length"
plant "a key's gradient is that of one query head" $t/flash_backward_keys.cu 's/g \* per \+ ahead \/ steps/g * per/' emu $t/flash_backward_keys.cu train/test_train_flash "sums over its query heads"
plant "queries beyond a window count for a key" $t/flash_backward_keys.cu 's/first_seen\(query, rows\.begin, a\.window\)/rows.begin/' emu $t/flash_backward_keys.cu train/test_train_flash "rows of a window"
plant "statistics of the queries to come lie on those that are read" $t/flash_backward_keys.cu 's/statistics \+ into \* 2 \* P::STEP/statistics/' emu $t/flash_backward_keys.cu train/test_train_flash "packed side by side"
plant "delta counts double" $t/flash_backward.cu 's/sd_value\(rounded\[d\]\), sd_value/2 * dout[d], sd_value/' emu $t/flash_backward.cu train/test_train_flash "every length"
plant "classes beyond the last one count" $t/loss_head.cu 's/if \(at >= end\) s\[t\]\[i\] = -INFINITY;//' emu $t/loss_head.cu train/test_train_loss "one chunk"
plant "splits of classes are added without their maxima" $t/loss_head.cu 's/exp_of\(of\[3 \* i\] - most\)/1.0f/' emu $t/loss_head.cu train/test_train_loss "several splits"
plant "a chunk forgets those before it" $t/loss_head.cu 's/x\.v0 \? x\.a\.max\[row\]/x.v0 < 0 ? x.a.max[row]/' emu $t/loss_head.cu train/test_train_loss "several splits"
plant "the label is not taken off its probability" $t/loss_head.cu 's/at == label \? p - 1\.0f : p/p/' emu $t/loss_head.cu train/test_train_loss "one chunk"
plant "a chunk's gradient overwrites the one before" $t/loss_head.cu 's/x\.v0 \? \*to \+ sum/x.v0 < 0 ? *to + sum/' emu $t/loss_head.cu train/test_train_loss "several splits"
plant "the last chunk of a gradient is not in its norm" $t/adamw.cu 's/return \(n \+ CHUNK - 1\) \/ CHUNK;/return n < CHUNK ? 1 : n \/ CHUNK;/' emu $t/adamw.cu train/test_train_adamw "the gradient's norm"
plant "gradients are added from the last to the first" $t/adamw.cu 's/v \+= parts\[k \* stride/v += parts[(count - 1 - k) * stride/' emu $t/adamw.cu train/test_train_adamw "in their order"
plant "a sum of gradients goes one element too far" $t/adamw.cu '/sd_gradient_add_f32/,/^}/ s/if \(i >= n\) return;/if (i > n) return;/' emu $t/adamw.cu train/test_train_adamw "in their order"
plant "epsilon stands inside the root" $t/adamw.cu 's/\(sqrt\(v\) \/ a\.root2 \+ a\.epsilon\)/sqrt(v \/ (a.root2 * a.root2) + a.epsilon)/' emu $t/adamw.cu train/test_train_adamw "ten steps"
# ---- wide products: descriptors, algorithms, the work space
plant "a transposition is forgotten" $k/blas/gemm.cu 's/second = s\.ta \? SD_LT_OP_T : SD_LT_OP_N/second = SD_LT_OP_N/' emu $k/blas/gemm.cu test_blas "every way"
plant "a matrix has the other one's leading dimension" $k/blas/gemm.cu 's/s\.n : s\.k\), s\.ldb/s.n : s.k), s.lda/' emu $k/blas/gemm.cu test_blas "every way"
plant "a sum overwrites what it should be added to" $k/blas/gemm.cu 's/p->add \? 1\.0f : 0\.0f/0.0f/' emu $k/blas/gemm.cu test_blas "every way"
plant "a shape takes another one's algorithm" $k/blas/gemm.cu 's/memcmp\(&b->plan\[i\]\.shape, s, sizeof \*s\) == 0/b->plan[i].shape.n == s->n/' emu $k/blas/gemm.cu test_blas "looked up once"
plant "an algorithm is used under descriptors of another shape" $k/blas/gemm.cu 's/b->plan\[at\] = made;/b->plan[at] = made, b->plan[at].algo = b->plan[0].algo;/' emu $k/blas/gemm.cu test_blas "looked up once"
plant "more alignment is promised than there is" $k/blas/gemm.cu 's/\{SD_LT_PREF_ALIGN_B, s\.align_a\}/{SD_LT_PREF_ALIGN_B, 16}/' emu $k/blas/gemm.cu test_blas "less aligned"
plant "partial sums may meet in any order" $k/blas/gemm.cu 's/= SD_LT_REDUCTION_NONE \| SD_LT_REDUCTION_COMPUTE_TYPE/= 7/' emu $k/blas/gemm.cu test_blas "every way"
plant "a plan that makes room keeps its descriptors" $k/blas/gemm.cu 's/^        forget\(b->lt, &b->plan\[at\]\);//' emu $k/blas/gemm.cu test_blas "more shapes"
plant "descriptors are given back before they are used" $k/blas/gemm.cu 's/^    \*out = &b->plan\[at\];/    *out = \&b->plan[at]; b->lt->layout_destroy(made.a);/' emu $k/blas/gemm.cu test_blas "looked up once"
plant "a product is queued without a work space" $k/blas/gemm.cu 's/b->workspace, *$/NULL,/' emu $k/blas/gemm.cu test_blas "looked up once"
plant "the stand-in adds in one order for any number of rows" tests/cuda/lt_emu.cpp 's/of\.n % 3/1/g' emu tests/cuda/lt_emu.cpp test_blas "depend on how many rows"
plant "the last value of an odd number is rounded with one that is not there" $t/rows_train.cu 's/if \(i \+ 1 < n\)/if (i < n)/' emu $t/rows_train.cu train/test_train_gather "rounded to bf16"
plant "a bias goes beyond its row" $t/rows_train.cu 's/if \(m < M\) y/if (m < ldy) y/' emu $t/rows_train.cu train/test_train_gather "a bias"
plant "row 0 passes for none" $t/rows_train.cu 's/from < 0 \? 0\.0f/from <= 0 ? 0.0f/' emu $t/rows_train.cu train/test_train_gather "by their numbers"
# ---- the training pass: waits, memory, what goes to the device
plant_host "a micro-batch's loss is not waited for" $p/pass.c 's/t->dev->event_wait\(f->done\)/0/' test_pass_batches "as if each"
plant_host "a micro-batch computes before its arrays have come" $p/pass.c 's/t->dev->stream_follow\(t->stream, sent\)/0/' test_pass_batches "as if each"
plant_host "arrays are written while the device reads them" $p/pass.c 's/SD_TRY\(sd_cuda_train_collect\(t, t->at, losses, err\)\);//' test_pass_batches "as if each"
plant_host "a micro-batch reads the arrays of the one before" $p/block_forward.c 's/there\[t->at\]\.pos/there[!t->at].pos/' test_pass_batches "as if each"
plant_host "parameters are copied from memory that is not for copies" $p/parameters.c 's/copy\(to \+ at, t->mem\.staging/copy(to + at, from + at/' test_pass "log probabilities and every"
plant_host "parameters that are on their way are overwritten" $p/parameters.c '/^static sd_status write_array/,/^}/ s/t->dev->stream_wait\(t->stream\)/0/' test_pass_steps "with every bit"
plant_host "the state of AdamW stays on the device" $p/learner.c 's/if \(!state\) goto out;/goto out;/' test_pass_steps "with every bit"
plant_host "a step begins with the gradient of the one before" $p/learner.c 's/l->begins = true;/l->begins = !l->losses.of;/' test_pass_steps "ten steps"
plant_host "a micro-batch's gradient takes the place of those before" $p/learner.c 's/l->begins = false;//' test_pass_batches "add up"
plant_host "AdamW takes the norm for its factor" $p/parameters.c 's/m->norm \+ 1, u->lr/m->norm, u->lr/' test_pass_steps "ten steps"
plant_host "a range of parameters has the moments of the first" $p/parameters.c 's/m->m \+ r->at/m->m/' test_pass_steps "ten steps"
plant_host "all ranges have one learning rate" $p/parameters.c 's/u->lr \* r->ratio/u->lr/' test_pass_steps "ten steps"
plant_host "products take the parameters of the step before" $p/parameters.c '/^sd_status sd_cuda_train_update/,/^}/ s/SD_TRY\(round_factors\(t, err\)\);//' test_pass_steps "behind a step"
plant_host "the weights' memory stays when a pass goes" $p/open.c 's/sd_cuda_free_weights\(&t->weights\);//' test_pass_batches "gives everything back"
plant_host "only the tokens of a micro-batch are sent" $p/pass.c 's/m->batch_bytes, t->copies/4 * (size_t)t->rows.N, t->copies/' test_pass "log probabilities and every"
plant_host "a token that is not supervised takes the first one's gradient" $p/pass.c 's/place\[n\] = -1/place[n] = 0/' test_pass "log probabilities and every"
plant_host "all segments have the first one's weight" $p/pass.c 's/t->weight\[sd_train_segment_of\(r, r->row\[i\]\)\]/t->weight[0]/' test_pass_batches "weights multiply"
plant_host "a factor's product has the stack's leading dimension" $p/stack.c 's/\.ldb = l->part\[i\]\.r,/.ldb = l->R,/' test_pass "log probabilities and every"
plant_host "an adapter's scale is forgotten" $p/stack.c 's/\.alpha = l->part\[i\]\.s,/.alpha = 1,/' test_pass "log probabilities and every"
plant_host "one matrix of a stack is dequantised over another" $p/stack.c 's/^        to \+= .*$//' test_pass "log probabilities and every"
plant_host "the factors' part of a gradient is taken from another buffer" $p/stack.c 's/\.a = t->mem\.du,/.a = t->mem.n,/' test_pass "log probabilities and every"
plant_host "all layers turn as the first one does" $p/block_forward.c 's/t->m->layer\[layer\]\.rope \*/0 */' test_pass "log probabilities and every"
plant_host "no layer of a pass has a window" $p/block_forward.c 's/\.window = t->m->layer\[layer\]\.window/.window = 0/' test_pass "log probabilities and every"
plant_host "what a half adds is not computed again" $p/block_forward.c 's/if \(t->mem\.acts\[layer\]\.down\) SD_TRY\(forward_mlp_out\(t, layer, err\)\);//' test_pass "computed twice"
plant_host "attention's norm is taken back through the other half's input" $p/block_backward.c 's/norm_back\(t, &l, a->x, /norm_back(t, \&l, a->x2, /' test_pass "log probabilities and every"
plant_host "the gradient stops a stack too early" $p/block_backward.c 's/s < stack; s\+\+/s < stack - 1; s++/' test_pass "on some maps"
plant_host "each chunk of classes has the first one's weights" $p/loss_head.c 's/&t->weights\.head, v0, n_v/\&t->weights.head, 0, n_v/' test_pass_batches "several chunks"
# ---- several devices
plant_host "a gradient is gathered before it is there" $p/ranks.c 's/t->dev->stream_follow\(t->meeting, t->there\)/0/' test_pass_ranks "in fp32"
plant_host "a gradient is overwritten while others read it" $p/pass.c 's/t->dev->stream_follow\(t->stream, t->added\)/0/' test_pass_ranks "in fp32"
plant_host "a step is taken before its gradients have met" $p/ranks.c 's/t->dev->stream_follow\(t->stream, t->added\)/0/' test_pass_ranks "in fp32"
plant_host "each device adds gradients in an order of its own" $p/ranks.c 's/mem\.gathered, n, n, micro_batches/mem.gathered + (r ? (size_t)(micro_batches - 1) * n : 0), n, r ? (size_t)0 - n : n, micro_batches/' test_pass_ranks "in fp32"
plant_host "the gradients of devices that had nothing to do are added" $p/ranks.c 's/n, n, micro_batches,/n, n, l->n,/' test_pass_ranks "in fp32"
plant_host "the last piece of the gradients is as long as the others" $p/ranks.c 's/all - at < bucket \? all - at : bucket/bucket/' test_pass_ranks "in fp32"
plant_host "each piece is the first" $p/ranks.c 's/mem\.grad \+ at/mem.grad/' test_pass_ranks "in fp32"
plant_host "the first device alone takes a step" $p/learner.c '/^static sd_status update/,/^}/ s/r < l->ranks\.n/r < 1/' test_pass_ranks "in fp32"
plant_host "the last round of a step is not added" $p/learner.c 's/^    SD_TRY\(add_waiting\(l, err\)\);//' test_pass_ranks "in fp32"
plant_host "losses are added as devices come to their end" $p/pass.c 's/losses->of\[f->number\] =/losses->of[i] = t->at ? 0 :/' test_pass_ranks "in fp32"
plant_host "a device works while another is chosen" $p/parameters.c 's/^    CUDA_TRY\(t->dev->choose\(t->device\), "choosing the device"\);//' test_pass_ranks "in fp32"
plant_host "a run on several devices needs no NCCL" $p/plan.c 's/SD_CHECK\(status != SD_CUDA_ENOCOMM/SD_CHECK(true/' test_pass_ranks "without NCCL"
plant_host "communicators stay open" $p/ranks.c 's/if \(l->comm\) l->rank\[0\]->dev->comm_close\(l->comm\);//' test_pass_ranks "in fp32"
plant "a rank sends fewer values than the others" $k/comm/comm.cu 's/from\[r\], to\[r\], n,/from[r], to[r], n - (r == 1 \&\& n > 1),/' emu $k/comm/comm.cu test_comm "each rank"
plant "a rank sends values of another type" $k/comm/comm.cu 's/SD_NCCL_FLOAT32, c/SD_NCCL_FLOAT32 - (r == 1), c/' emu $k/comm/comm.cu test_comm "each rank"
plant "a rank is queued on the stream of another" $k/comm/comm.cu 's/stream\[r\]\);/stream[0]);/' emu $k/comm/comm.cu test_comm "each rank"
plant "ranks call one by one" $k/comm/comm.cu 's/int result = c->nccl->group_start\(\);/int result = 0;/' emu $k/comm/comm.cu test_comm "each rank"
plant "a group stays open where a call fails" $k/comm/comm.cu 's/const int ended = c->nccl->group_end\(\);/const int ended = result ? 0 : c->nccl->group_end();/' emu $k/comm/comm.cu test_comm "is closed all the same"
plant "a rank is another one's communicator" $k/comm/comm.cu 's/c->rank\[r\], stream/c->rank[c->ranks - 1 - r], stream/' emu $k/comm/comm.cu test_comm "each rank"
plant "the stand-in begins before all ranks have come" tests/cuda/nccl_emu.cpp 's/emu::stream_wait\(c\.stream, other\.comm->arrived\)/(void)other/' emu tests/cuda/nccl_emu.cpp test_comm "each rank"
plant "the stand-in lets a rank go on while it is read" tests/cuda/nccl_emu.cpp 's/emu::stream_wait\(c\.stream, other\.comm->done\)/(void)other/' emu tests/cuda/nccl_emu.cpp test_comm "each rank"
plant_host "a plan forgets the weights" $p/plan.c 's/weights \+ mem\.device_bytes/mem.device_bytes/' test_pass_batches "what was planned"
plant_host "a run resumes elsewhere" trainer/recipe/table.c '/KEY\("device.kind"/,/SAME\)/ s/SAME\)/.o.min = 0)/' test_pass_run "goes on from"
# ---- registers that nobody wrote
plant "a product's sums begin with what is there" $k/matmul.cu 's/float acc\[2\]\[4\] = \{\};/float acc[2][4];/' msan $k/matmul.cu test_matmul "beyond sixteen"
plant "a query's sums begin with what is there" $t/flash_forward.cu 's/sums<P::MOST_D> o = \{\};/sums<P::MOST_D> o;/' msan $t/flash_forward.cu train/test_train_flash "every length"
# ---- inline assembly, of which only the compiler's output tells
plant "two registers of A are exchanged in mma's operands" $k/dialect.cuh 's/"r"\(a\[1\]\), "r"\(a\[2\]\)/"r"(a[2]), "r"(a[1])/' ptx $k/attention.cu test_attention "leave some"
plant "the registers of B are exchanged in mma's operands" $k/dialect.cuh 's/"r"\(b\[0\]\), "r"\(b\[1\]\)\);/"r"(b[1]), "r"(b[0]));/' ptx $k/attention.cu test_attention "leave some"
plant "rows g and g + 8 of mma's sums are exchanged" $k/dialect.cuh 's/"\+f"\(d\[1\]\), "\+f"\(d\[2\]\)/"+f"(d[2]), "+f"(d[1])/' ptx $k/attention.cu test_attention "leave some"
plant "ldmatrix lacks .trans" $k/dialect.cuh 's/x4\.trans\.shared/x4.shared/' ptx $k/attention.cu test_attention "leave some"
plant "ldmatrix has a .trans too many" $k/dialect.cuh 's/x4\.shared/x4.trans.shared/' ptx $k/attention.cu test_attention "leave some"
plant "ldmatrix gives its second matrix as the third" $k/dialect.cuh 's/"=r"\(r\[1\]\), "=r"\(r\[2\]\)/"=r"(r[2]), "=r"(r[1])/' ptx $k/attention.cu test_attention "leave some"
plant "ldmatrix is given a generic address" $k/dialect.cuh 's/\(uint32_t\)__cvta_generic_to_shared\(row\)/(uint32_t)(size_t)row/' ptx $k/attention.cu test_attention "leave some"
plant "cp.async copies where it should fill with zeros" $k/dialect.cuh 's/"r"\(take \? 16 : 0\)/"r"(16)/' ptx $k/attention.cu test_attention "leave some"
plant "cp.async.wait_group leaves one group too many" $k/dialect.cuh 's/"n"\(left\)/"n"(left + 1)/' ptx $k/attention.cu test_attention "leave some"
plant "cp.async.commit_group is missing" $k/dialect.cuh 's/"cp\.async\.commit_group;"/""/' ptx $k/attention.cu test_attention "leave some"
plant "cvt.bf16x2 has its halves exchanged" $k/dialect.cuh 's/"f"\(hi\), "f"\(lo\)/"f"(lo), "f"(hi)/' ptx $k/attention.cu test_attention "leave some"
plant "the sum of bf16 pairs multiplies by what is not one" $k/dialect.cuh 's/0x3f803f80u\), "r"/0x3f803f81u), "r"/' ptx $k/matmul.cu test_matmul "beyond sixteen"
plant "a load of 16 bytes has two words exchanged" $k/dialect.cuh 's/"=r"\(v\.x\), "=r"\(v\.y\)/"=r"(v.y), "=r"(v.x)/' ptx $k/matmul.cu test_matmul "beyond sixteen"
plant "a barrier is left out for nvcc alone" $k/scalar.cuh 's/^    __syncthreads\(\);$/#ifndef __CUDACC__\n&\n#endif/' ptx $k/rows.cu test_rows "rmsnorm equals"
plant_host "a copied page lacks its values" $b/kv_memory.c 's/i < 2 \* p->G && !status/i < p->G \&\& !status/' test_infer_engine "is found"
plant_host "a row sees twice its window" $b/forward.c 's/\.window = cx->model->layer\[l\]\.window/.window = 2 * cx->model->layer[l].window/' test_infer "each architecture"
# ---- recorded steps
plant "a tile of no rows is one" $k/attention.cu 's/if \(!tile\.rows\) return;//' emu $k/attention.cu test_attention "leave some"
plant "what is recorded runs at once" tests/cuda/emu/queue.cpp 's/^    if \(s->recorded\)$/    if (s->recorded \&\& false)/' emu tests/cuda/emu/queue.cpp test_emu "a stream records"
plant_host "the wrong graph bucket: a step of other lengths is started" $b/graph.c 's/, key->longest = cx->all\.chunk\[0\]\.longest;/;/' test_infer_graph "shorter texts"
plant_host "the wrong graph bucket: a step of other rows is started" $b/graph.c 's/key->rows = cx->all\.n, //' test_infer_graph "of any rows"
plant_host "a step over other pages is started" $b/graph.c 's/memcmp\(g->kind\[i\]\.layer, layer, layers\) == 0/layer \&\& layers/' test_infer_graph "another memory of pages"
plant_host "a step of adapters that have moved is started" $b/graph.c 's/^ +key->adapter_arrays\[.*$//' test_infer_graph "adapters moved"
plant_host "a step of other adapters is started" $b/graph.c 's/key->adapter\[i\] = cx->used\[i\]->generation/(void)0/' test_infer_graph "adapters moved"
plant_host "graphs of forgotten steps stay" $b/graph.c 's/if \(k->graph\) dev->graph_close\(k->graph\);//' test_infer_graph "recorded anew"
# ---- the plugin
plant_plugin "the plugin copies on another stream" $k/plugin/table.cu 's/cudaMemcpyDefault, \(cudaStream_t\)s/cudaMemcpyDefault, NULL/' $k/plugin/table.cu test_infer_rows "alone and in chunks"
plant_plugin "the plugin does not wait for a stream" $k/plugin/table.cu 's/taken\(cudaStreamSynchronize\(\(cudaStream_t\)s\)\)/0 * (s != NULL)/' $k/plugin/table.cu test_infer_rows "sampler, on the device"
plant_plugin "a kernel has no more shared memory than all have" $k/dialect.cuh 's/^    \(\(int\)cudaFuncSetAttribute\(kernel.*$/    ((void)(kernel), (void)(bytes), 0)/' $k/attention.cu test_infer_memory "was planned"
# ---- queues
plant "the splits are merged on another stream" $k/attention.cu 's/MERGE_THREADS, 0, s, x/MERGE_THREADS, 0, nullptr, x/' emu $k/attention.cu test_attention "splits of 512"
plant "the emulator runs a wait before its event" tests/cuda/emu/queue.cpp 's/o\.waits_for->done >= o\.record/true/' emu tests/cuda/emu/queue.cpp test_emu "waits for an event"
}

# The control: an edit that changes nothing must break nothing.
if [ -z "$word" ]; then
  turn=1
  control=$(plant "control" $k/scalar.cuh 's/float sum = 0;/float sum = 0.0f;/' emu $k/rows.cu test_rows "rmsnorm equals")
  if [[ $control == *"no test fails (status 0)"* ]]; then
    echo "ok - planted: a harmless edit breaks nothing"
  else
    echo "not ok - planted: a harmless edit breaks a test or does not build"
    echo "# $control"
    failed=1
  fi
fi

# What the translator does not know is an error that names it.
if [ -z "$word" ] && [ -n "$nvcc" ]; then
  mkdir -p "$work/unknown/$k"
  sed 's/ex2\.approx\.ftz\.f32/ex2.approx.f32/' $k/dialect.cuh >"$work/unknown/$k/dialect.cuh"
  cp $k/attention.cu "$work/unknown/$k/"
  if translate "$work/unknown" $k/attention.cu 2>"$work/log" || ! grep -q "instruction 'ex2.approx.f32' has no rule" "$work/log"; then
    echo "not ok - planted: an instruction that the translator does not know ends the build by its name"
    failed=1
  else
    echo "ok - planted: an instruction that the translator does not know ends the build by its name"
  fi
fi

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
