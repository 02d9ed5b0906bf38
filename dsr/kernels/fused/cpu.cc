// The stage on a CPU: the reference that the tests hold the GPU's source to.
#include <vector>

#include "ffi.h"

template <class T, ffi::DataType D> ffi::Error forward_call(
    Index lefts, Index rights, Index alike, Input<D> from1, Input<D> from2,
    Input<D> planes1, Input<D> planes2, Output<D> gap, Output<D> ntk,
    bool images, Scales scales, Scales biases) {
  Stage<T> s = stage_of<T, D>(lefts, rights, alike, from1, from2, planes1,
                              planes2, images, scales, biases);
  s.gap_out = gap->typed_data(), s.ntk_out = ntk->typed_data();
  const int pairs = lefts.dimensions()[0];
  std::vector<T> carry(s.height * kLanes);
#define RUN(L, IMAGES) \
  for (int p = 0; p < pairs; ++p) \
    for (int u = 0; u < units_of(s.width); ++u) \
      stage_forward<T, L, IMAGES>(s, p, u, carry.data())
  DISPATCH_STAGE(scales.size(), images, RUN);
#undef RUN
  return ffi::Error::Success();
}

template <class T, ffi::DataType D> ffi::Error backward_call(
    Index lefts, Index rights, Index alike, Input<D> from1, Input<D> from2,
    Input<D> planes1, Input<D> planes2, Input<D> gap_slope,
    Input<D> ntk_slope, Output<D> gap, Output<D> ntk, Output<D> sums1,
    Output<D> sums2, bool images, Scales scales, Scales biases) {
  Stage<T> s = stage_of<T, D>(lefts, rights, alike, from1, from2, planes1,
                              planes2, images, scales, biases);
  s.gap_slope = gap_slope.typed_data(), s.ntk_slope = ntk_slope.typed_data();
  s.gap_back = gap->typed_data(), s.ntk_back = ntk->typed_data();
  s.sums1 = sums1->typed_data(), s.sums2 = sums2->typed_data();
  const int pairs = lefts.dimensions()[0];
  std::vector<T> sums(2 * planes_of(s, scales.size()) * s.height * kLanes);
#define RUN(L, IMAGES) \
  for (int p = 0; p < pairs; ++p) \
    for (int u = 0; u < units_of(s.width); ++u) \
      stage_backward<T, L, IMAGES>(s, p, u, sums.data())
  DISPATCH_STAGE(scales.size(), images, RUN);
#undef RUN
  return ffi::Error::Success();
}

DEFINE_HANDLERS(float32, float, ffi::F32, );
DEFINE_HANDLERS(float64, double, ffi::F64, );
