// Code bits of eight channels into one byte: what cwic::binarize and the packing after it do
// in one pass. One thread makes one byte.
//
//   e       float [N, n, H, W]; a bit is e > 0 (0 for NaN)
//   packed  float [N, n/8, H, W], whole numbers 0..255; channel k is bit 7 - k % 8 of byte k / 8
//
// A byte's channels follow each other, so plane p of `packed` is made of planes 8p .. 8p + 7
// of `e`, whatever N is. The output is float because a TensorRT plugin cannot give uint8; a
// cast does the rest. Scalars stand between inputs and outputs, as TensorRT passes them.

extern "C" __global__ void cwic_binarize_pack(const float* __restrict__ e,
                                              int positions,  // H * W
                                              int bytes,      // N * n/8 * H * W
                                              float* __restrict__ packed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= bytes) return;
  const int plane = i / positions;
  const float* first = e + (static_cast<long long>(plane) * 7 * positions + i);
  unsigned int byte = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k)
    byte = byte << 1 | (first[static_cast<long long>(k) * positions] > 0.0f);
  packed[i] = static_cast<float>(byte);
}
