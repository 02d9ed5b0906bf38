// The stage on an NVIDIA GPU: a warp for each (pair, pooled shift in columns).
#include "ffi.h"

constexpr int kWarpsForward = 1, kWarpsBackward = 1;  // A block.

template <class T, int L, bool kImages>
__global__ void __launch_bounds__(kWarpsForward * kLanes)
forward(Stage<T> s, int pairs, int units) {
  extern __shared__ char shared[];
  const int warp = threadIdx.x / kLanes;
  const long long job = (long long)blockIdx.x * kWarpsForward + warp;
  if (job >= (long long)pairs * units) return;
  T* carry = reinterpret_cast<T*>(shared) + warp * s.height * kLanes;
  stage_forward<T, L, kImages>(s, job / units, job % units, carry);
}

template <class T, int L, bool kImages>
__global__ void __launch_bounds__(kWarpsBackward * kLanes)
backward(Stage<T> s, int units) {
  extern __shared__ char shared[];
  stage_backward<T, L, kImages>(s, blockIdx.x / units, blockIdx.x % units,
                                reinterpret_cast<T*>(shared));
}

inline ffi::Error last_error() {
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    return ffi::Error::Internal(cudaGetErrorString(error));
  return ffi::Error::Success();
}

template <class F> void allow(F kernel, size_t bytes) {
  cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

template <class T, ffi::DataType D> ffi::Error forward_call(
    cudaStream_t stream, Index lefts, Index rights, Index alike,
    Input<D> from1, Input<D> from2, Input<D> planes1, Input<D> planes2,
    Output<D> gap, Output<D> ntk, bool images, Scales scales, Scales biases) {
  Stage<T> s = stage_of<T, D>(lefts, rights, alike, from1, from2, planes1,
                              planes2, images, scales, biases);
  s.gap_out = gap->typed_data(), s.ntk_out = ntk->typed_data();
  const int pairs = lefts.dimensions()[0], units = units_of(s.width);
  const long long jobs = (long long)pairs * units;
  const int blocks = (jobs + kWarpsForward - 1) / kWarpsForward;
  const size_t bytes = kWarpsForward * s.height * kLanes * sizeof(T);
#define RUN(L, IMAGES) \
  do { \
    auto kernel = forward<T, L, IMAGES>; \
    allow(kernel, bytes); \
    kernel<<<blocks, kWarpsForward * kLanes, bytes, stream>>>( \
        s, pairs, units); \
  } while (false)
  DISPATCH_STAGE(scales.size(), images, RUN);
#undef RUN
  return last_error();
}

template <class T, ffi::DataType D> ffi::Error backward_call(
    cudaStream_t stream, Index lefts, Index rights, Index alike,
    Input<D> from1, Input<D> from2, Input<D> planes1, Input<D> planes2,
    Input<D> gap_slope, Input<D> ntk_slope, Output<D> gap, Output<D> ntk,
    Output<D> sums1, Output<D> sums2, bool images, Scales scales,
    Scales biases) {
  Stage<T> s = stage_of<T, D>(lefts, rights, alike, from1, from2, planes1,
                              planes2, images, scales, biases);
  s.gap_slope = gap_slope.typed_data(), s.ntk_slope = ntk_slope.typed_data();
  s.gap_back = gap->typed_data(), s.ntk_back = ntk->typed_data();
  s.sums1 = sums1->typed_data(), s.sums2 = sums2->typed_data();
  const int pairs = lefts.dimensions()[0], units = units_of(s.width);
  const size_t bytes = 2 * planes_of(s, scales.size()) * s.height * kLanes
      * sizeof(T);
#define RUN(L, IMAGES) \
  do { \
    auto kernel = backward<T, L, IMAGES>; \
    allow(kernel, bytes); \
    kernel<<<pairs * units, kLanes, bytes, stream>>>(s, units); \
  } while (false)
  DISPATCH_STAGE(scales.size(), images, RUN);
#undef RUN
  return last_error();
}

#define STREAM .Ctx<ffi::PlatformStream<cudaStream_t>>()
DEFINE_HANDLERS(float32, float, ffi::F32, STREAM);
DEFINE_HANDLERS(float64, double, ffi::F64, STREAM);
