// Rows of the layers of a stage: input, convolution, ReLU, both directions.
#pragma once
#include "columns.h"

// Row y of the stage's input; ntk stays 0 in a first stage.
template <class T, bool kImages> DEVICE void input_row(
    const Stage<T>& a, const Place<T>& p, int y, Lane<T>* g, Lane<T>* n) {
  UNROLL for (int k = 0; k < 4; ++k) g[k] = n[k] = T(0);
  if (y >= p.H) return;
  if (!kImages) {
    UNROLL for (int k = 0; k < 4; ++k) {
      g[k] = load(p.gap, p.in_map(y, k));
      n[k] = load(p.ntk, p.in_map(y, k));
    }
    return;
  }
  ROLLED for (int ch = 0; ch < a.channels; ++ch) {
    Lane<T> one = load(p.image1 + ch * p.area + y * p.W, p.c.x);
    UNROLL for (int k = 0; k < 4; ++k) {
      Lane<T> two = load(p.image2 + ch * p.area + p.row2(y, k) * p.W,
                         p.c.right[k % 2]);
      Lane<T> d = one - two;
      g[k] = g[k] + (p.alike > T(0) ? d * d : one * two * T(-2));
    }
  }
  const T weight = T(0.5) / T(a.channels);
  UNROLL for (int k = 0; k < 4; ++k) g[k] = g[k] * weight;
}

// The last two rows, each summed over three columns.
template <class T> struct Rows {
  Lane<T> older[4], newer[4];
  DEVICE void clear() {
    UNROLL for (int k = 0; k < 4; ++k) older[k] = newer[k] = T(0);
  }
  DEVICE void push(const Lane<T>* row) {
    UNROLL for (int k = 0; k < 4; ++k) older[k] = newer[k], newer[k] = row[k];
  }
};

template <class T> DEVICE Lane<T> three_columns(
    const Columns& c, int e, Lane<T> v) {
  const Lane<T> zero = T(0);
  return pick(c.cut_left[e], zero, up(v)) + v
      + pick(c.cut_right[e], zero, down(v));
}

// Takes row `in` of v, gives the 3 x 3 sums of row in - 1, zeros outside.
// The window is its own transpose, so this serves both directions.
template <class T> DEVICE void window(
    const Place<T>& p, int in, T scale, Rows<T>& rows, Lane<T>* v) {
  Lane<T> sums[4];
  UNROLL for (int k = 0; k < 4; ++k) {
    sums[k] = T(0);
    if (0 <= in && in < p.H) sums[k] = three_columns<T>(p.c, k % 2, v[k]);
    const int y = in - 1, y2 = p.row2(y, k);
    Lane<T> total = rows.newer[k];
    if (y > 0 && y2 != 0) total = total + rows.older[k];
    if (y < p.H - 1 && y2 != p.H - 1) total = total + sums[k];
    v[k] = total * scale;
  }
  rows.push(sums);
}

// q / 2 summed over three columns of a row where one image is outside.
template <class T> DEVICE Lane<T> outside_row(
    const Place<T>& p, const T* half1, const T* half2, int y1, int y2, int e) {
  Lane<T> total = T(0);
  for (int d = 0; d < 3; ++d)
    total = total + load(half1 + (y1 + 1) * p.pitch + d, p.c.x)
        + load(half2 + (y2 + 1) * p.pitch + d, p.c.right[e]);
  return total;
}

// As `window`, for a gap: where one image is outside and the other one is
// not, the gap is half the variance of that other one; 0 if it is -k, which
// takes the bias instead.
template <class T> DEVICE void window_of_gap(
    const Stage<T>& a, const Place<T>& p, int layer, int in, Rows<T>& rows,
    Lane<T>* v) {
  const T scale = a.scale[layer], shift = (p.alike - T(1)) * a.bias[layer];
  const T *half1 = p.planes1 + 3 * layer * p.plane;
  const T *half2 = p.planes2 + 3 * layer * p.plane;
  const Lane<T> zero = T(0);
  Lane<T> sums[4];
  UNROLL for (int k = 0; k < 4; ++k) {
    const int e = k % 2;
    sums[k] = zero;
    if (0 <= in && in < p.H) {
      const T* row1 = half1 + (in + 1) * p.pitch;
      const T* row2 = half2 + (p.row2(in, k) + 1) * p.pitch;
      const Lane<bool> left = p.c.cut_left[e], right = p.c.cut_right[e];
      // At a cut at most one of the two is not in the frame of zeros.
      Lane<T> before = load_where(left, row1, p.c.x, zero)
          + load_where(left, row2, p.c.right[e], zero);
      Lane<T> after = load_where(right, row1 + 2, p.c.x, zero)
          + load_where(right, row2 + 2, p.c.right[e], zero);
      sums[k] = pick(left, before * p.alike, up(v[k])) + v[k]
          + pick(right, after * p.alike, down(v[k]));
    }
    const int y = in - 1, y2 = p.row2(y, k);
    if (y < 0 || y >= p.H) continue;
    Lane<T> top = rows.older[k], low = sums[k];
    if (y == 0 || y2 == 0)
      top = outside_row(p, half1, half2, y - 1, y2 - 1, e) * p.alike;
    if (y == p.H - 1 || y2 == p.H - 1)
      low = outside_row(p, half1, half2, y + 1, y2 + 1, e) * p.alike;
    v[k] = (top + rows.newer[k] + low) * scale + shift;
  }
  rows.push(sums);
}

// The quantities of `nonlinearities.Relu` at one row.
template <class T> struct Relu {
  Lane<T> root1, inv1, root2, inv2, s, excess, inv, h, w, root, kappa0;
  T alike;
};

template <class T> DEVICE Relu<T> relu_at(
    const Place<T>& p, int layer, int y, int k, Lane<T> gap) {
  const T* one = p.planes1 + (3 * layer + 1) * p.plane + (y + 1) * p.pitch + 1;
  const T* two = p.planes2 + (3 * layer + 1) * p.plane
      + (p.row2(y, k) + 1) * p.pitch + 1;
  const Lane<int> x2 = p.c.right[k % 2];
  Relu<T> r;
  r.root1 = load(one, p.c.x), r.inv1 = load(one + p.plane, p.c.x);
  r.root2 = load(two, x2), r.inv2 = load(two + p.plane, x2);
  Lane<T> apart = r.root1 - r.root2;
  r.s = r.root1 * r.root2;
  r.alike = p.alike;
  r.excess = p.alike > T(0) ? gap - apart * apart * T(0.5) : gap + r.s;
  r.inv = r.inv1 * (r.inv2 * T(0.5));
  r.h = r.excess * r.inv;
  const Lane<T> zero = T(0), one_ = T(1);
  r.w = greater(lesser(r.h, one_ - r.h), zero);
  r.root = root_of(r.w);
  Lane<T> angle = r.root * angle_polynomial(r.w);
  r.kappa0 = pick(r.h > T(0.5), angle, one_ - angle);
  return r;
}

// gap and ntk before the ReLU -> after it; ntk without the layer's own part.
template <class T> DEVICE void relu_forward(
    const Relu<T>& r, Lane<T>& gap, Lane<T>& ntk) {
  const Lane<T> zero = T(0);
  Lane<T> rest = r.s - r.excess;  // The covariance, which a layer adds to ntk.
  Lane<T> bend = r.s * r.root * (r.w * bend_polynomial(r.w));
  ntk = (rest + ntk) * r.kappa0 * T(0.5);
  gap = (gap - (greater(zero - rest, zero) + bend)) * T(0.5);
}

// Slopes of the outputs -> of gap (through nngp too) and ntk before the layer.
// q1, q2: slopes of the variances, with the derivative of the convolution in
// the form gap = share (q1 + q2) - conv(k). Below the top, q after the ReLU is
// q / 2 and enters the next convolution; that part is in here too.
template <class T> DEVICE void relu_backward(
    const Relu<T>& r, bool top, Lane<T> ntk, Lane<T>& gap_slope,
    Lane<T>& ntk_slope, Lane<T>& q1, Lane<T>& q2) {
  constexpr T kInvPi = T(0.31830988618379067154);
  const Lane<T> zero = T(0), one = T(1);
  Lane<T> square = r.w * (one - r.w);
  Lane<T> half_sine = root_of(square);
  Lane<T> inverse = pick(square > T(0), inverse_of(
      pick(square > T(0), half_sine, one)), zero);
  Lane<T> full = r.s - r.excess + ntk;
  Lane<T> turn = full * ntk_slope * inverse * (T(-0.5) * kInvPi);
  Lane<T> gap_in = r.kappa0 * gap_slope * T(0.5) + turn * r.inv;
  Lane<T> ntk_in = r.kappa0 * ntk_slope * T(0.5);
  Lane<T> log_s = r.s * half_sine * gap_slope * (zero - kInvPi) - turn * r.h;
  Lane<T> apart = zero, mean = zero;
  if (r.alike > T(0)) {
    apart = (r.root1 - r.root2) * turn * r.inv * T(0.5);
    mean = (top ? one - r.kappa0 : zero - r.kappa0) * gap_slope * T(0.25)
        + gap_in * T(0.5);
  } else {  // excess = gap + s.
    log_s = log_s + turn * r.inv * r.s;
  }
  q1 = mean + (log_s * r.inv1 * T(0.5) - apart) * r.inv1;
  q2 = mean + (log_s * r.inv2 * T(0.5) + apart) * r.inv2;
  gap_slope = gap_in - ntk_in;
  ntk_slope = ntk_in;
}
