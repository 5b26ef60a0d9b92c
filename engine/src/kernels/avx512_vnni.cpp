// AVX-512 with VNNI: integers on 512 bits, attention in float32.
#define LANES 16
#define UNSIGNED_CODES
#include "attention.inl"
#include "avx512_vnni.inl"

namespace tightrope {

const Kernels kAvx512Vnni = {"avx512-vnni", quantize, prepare, multiply, multiply_floats,
                             normalize, gather, attend, attention_bytes,
                             attend, attention_bytes, activate};

}  // namespace tightrope
