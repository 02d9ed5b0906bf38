// What `cpu.cc` and `cuda.cu` share: how XLA hands over the arrays of a call.
#pragma once
#include "xla/ffi/api/ffi.h"

#include "stage.h"

namespace ffi = xla::ffi;

template <ffi::DataType D> using Input = ffi::Buffer<D>;
template <ffi::DataType D> using Output = ffi::Result<ffi::Buffer<D>>;
using Index = ffi::Buffer<ffi::S32>;
using Scales = ffi::Span<const double>;

// `from1`, `from2`: images (N, C, H, W), or gap and ntk in shift order.
template <class T, ffi::DataType D> Stage<T> stage_of(
    Index& lefts, Index& rights, Index& alike, Input<D>& from1,
    Input<D>& from2, Input<D>& planes1, Input<D>& planes2, bool images,
    Scales scales, Scales biases) {
  Stage<T> s{};
  auto shape = planes1.dimensions();
  s.height = shape[3] - 2, s.width = shape[4] - 2;
  s.channels = images ? from1.dimensions()[1] : 0;
  for (size_t l = 0; l < scales.size() && l < 3; ++l)
    s.scale[l] = scales[l], s.bias[l] = biases[l];
  s.lefts = lefts.typed_data(), s.rights = rights.typed_data();
  s.alike = alike.typed_data();
  (images ? s.image1 : s.gap) = from1.typed_data();
  (images ? s.image2 : s.ntk) = from2.typed_data();
  s.planes1 = planes1.typed_data(), s.planes2 = planes2.typed_data();
  return s;
}

template <class T> int planes_of(const Stage<T>& s, int convs) {
  return convs + (s.channels ? s.channels : 1);
}

// `run(L, kImages)` with the number of convolutions as a constant.
#define DISPATCH_STAGE(convs, images, run) \
  do { \
    if (images) { \
      if (convs == 1) run(1, true); \
      if (convs == 2) run(2, true); \
      if (convs == 3) run(3, true); \
    } else { \
      if (convs == 1) run(1, false); \
      if (convs == 2) run(2, false); \
      if (convs == 3) run(3, false); \
    } \
  } while (false)

#define STAGE_ARGUMENTS(D) \
  .Arg<Index>().Arg<Index>().Arg<Index>().Arg<Input<D>>() \
  .Arg<Input<D>>().Arg<Input<D>>().Arg<Input<D>>()
#define STAGE_ATTRIBUTES \
  .Attr<bool>("images").Attr<Scales>("scales").Attr<Scales>("biases")
#define FORWARD_OF(D, context) \
  ffi::Ffi::Bind() context STAGE_ARGUMENTS(D) \
  .Ret<ffi::Buffer<D>>().Ret<ffi::Buffer<D>>() STAGE_ATTRIBUTES
#define BACKWARD_OF(D, context) \
  ffi::Ffi::Bind() context STAGE_ARGUMENTS(D) \
  .Arg<Input<D>>().Arg<Input<D>>() \
  .Ret<ffi::Buffer<D>>().Ret<ffi::Buffer<D>>() \
  .Ret<ffi::Buffer<D>>().Ret<ffi::Buffer<D>>() STAGE_ATTRIBUTES

#define DEFINE_HANDLERS(dtype, T, D, context) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL( \
      dsr_stage_forward_##dtype, (forward_call<T, D>), \
      FORWARD_OF(D, context)); \
  XLA_FFI_DEFINE_HANDLER_SYMBOL( \
      dsr_stage_backward_##dtype, (backward_call<T, D>), \
      BACKWARD_OF(D, context))
