// One stage of a convolutional NTK for one pair of images, without a joint map.
//
// A stage is `L` times (3 x 3 convolution with zeros outside, ReLU), then a
// 2 x 2 mean; the mathematics is that of `kernels/layers.py`. It maps gap and
// ntk, of shape (H, W, H, W), to half the size.
//
// Shift order. An entry (p, p') is kept at [s][p], s = p - p' modulo the size.
// A convolution moves both positions together, so each shift s is an H x W map
// of its own up to the pool. Where p or p' is at an edge the neighbours are
// outside; the "cut" of a map is where p' wraps around.
//
// One warp streams maps from the first row to the last: a lane is a column, a
// convolution keeps two rows of sums, a ReLU nothing, so that everything but
// the pooled result lives in registers. Four shifts 2S + {0, 1}^2 go at once:
// they hold all that the pooled shift S needs, up to what its two predecessors
// send it (an odd shift has its even rows or columns in S + 1).
//
//   pooled[S][P] = (1/16) sum over a, a' in {0, 1}^2 of
//                  map[2S + a - a'][2P + a]
//
// The predecessor in rows is the same warp, which carries its part; that in
// columns is another one, so both parts are written, side by side: column 2P
// of the result holds what belongs to S + 1, column 2P + 1 what belongs to S.
#pragma once
#include "layers.h"

// `carry`: (2, H / 2, 32) numbers of the warp's own.
template <class T, int L, bool kImages>
DEVICE void stage_forward(const Stage<T>& a, int pair, int unit, T* carry) {
  Place<T> p = place_of<T, L>(a, pair, unit);
  const int H = p.H, W = p.W;
  const size_t out = size_t(pair) * (p.area / 4) * (p.area / 2);
  const Columns& c = p.c;
  const Lane<T> zero = T(0);
  const Lane<bool> all = c.lane > -1;
  for (int i = 0; i < H; ++i) poke(carry + i * kLanes, c.lane, zero, all);

  ROLLED for (p.half = 0; p.half < H / 2; ++p.half) {
    Rows<T> gaps[L], ntks[L];
    UNROLL for (int l = 0; l < L; ++l) gaps[l].clear(), ntks[l].clear();
    Lane<T> own[2] = {zero, zero}, sent[2] = {zero, zero};

    ROLLED for (int t = 0; t < H + L; ++t) {
      Lane<T> g[4], n[4];
      input_row<T, kImages>(a, p, t, g, n);
      UNROLL for (int l = 0; l < L; ++l) {
        const int y = t - l - 1;
        window_of_gap(a, p, l, y + 1, gaps[l], g);
        if (!kImages || l > 0) window(p, y + 1, a.scale[l], ntks[l], n);
        if (0 <= y && y < H)
          UNROLL for (int k = 0; k < 4; ++k)
            relu_forward(relu_at(p, l, y, k, g[k]), g[k], n[k]);
      }
      const int y = t - L;
      if (y < 0) continue;
      UNROLL for (int m = 0; m < 2; ++m) {  // gap, then ntk
        const Lane<T>* v = m ? n : g;
        Lane<T> part[2];
        UNROLL for (int e = 0; e < 2; ++e) {
          Lane<T> both = v[2 * e] + pick(c.odd, v[2 * e + 1], zero);
          both = both + swap(both);
          part[e] = pick(c.odd, both, v[2 * e + 1]);
        }
        own[m] = own[m] + part[0];
        if (y % 2 == 0) {
          sent[m] = part[1];
        } else {
          T* slot = carry + (m * (H / 2) + y / 2) * kLanes;
          T* to = (m ? a.ntk_out : a.gap_out) + out;
          Lane<int> at = ((c.half_shift + p.half * (W / 2)) * (H / 2) + y / 2)
              * W + c.x;
          poke(to, at, own[m] + part[1] + peek(slot, c.lane), c.active);
          poke(slot, c.lane, sent[m], all);
          own[m] = zero;
        }
      }
    }
  }
  for (int i = 0; i < H; ++i) {  // What the last shifts send to the first.
    T* to = (i >= H / 2 ? a.ntk_out : a.gap_out) + out;
    Lane<int> at = (c.half_shift * (H / 2) + i % (H / 2)) * W + c.x;
    poke(to, at, peek(to, at) + peek(carry + i * kLanes, c.lane), c.active);
  }
}

// Adds to a warp's sums over the pairs of positions: v1 at row y of the left
// image, v2 at the row and column of the right one. A lane has its own column
// there, that of the even shift; the odd shift's is the next lane's.
template <class T> DEVICE void add_sums(
    const Place<T>& p, T* sums1, T* sums2, int y, const Lane<T>* v1,
    const Lane<T>* v2) {
  const Columns& c = p.c;
  T* to = sums1 + y * kLanes;
  poke(to, c.lane, peek(to, c.lane) + (v1[0] + v1[1]) + (v1[2] + v1[3]),
       c.active);
  UNROLL for (int k = 0; k < 4; k += 2) {
    to = sums2 + p.row2(y, k) * kLanes;
    poke(to, c.lane, peek(to, c.lane) + v2[k] + from(v2[k + 1], c.next),
         c.active);
  }
}

// The vector-Jacobian product, by the same streams: forward once more, and
// each layer's slopes one row behind those of the layer above.
// `sums`: (2, planes, H, 32) numbers of the warp's own. Planes: q after each
// convolution, then the C channels of the images, or q before the stage.
template <class T, int L, bool kImages>
DEVICE void stage_backward(const Stage<T>& a, int pair, int unit, T* sums) {
  Place<T> p = place_of<T, L>(a, pair, unit);
  const int H = p.H, W = p.W, planes = L + (kImages ? a.channels : 1);
  const size_t back = size_t(pair) * p.area * p.area;
  const T* gap_slope = a.gap_slope + back / 16;
  const T* ntk_slope = a.ntk_slope + back / 16;
  const Columns& c = p.c;
  const Lane<T> zero = T(0);
  const Lane<bool> all = c.lane > -1;
  T *sums1 = sums, *sums2 = sums + planes * H * kLanes;
  for (int i = 0; i < 2 * planes * H; ++i)
    poke(sums + i * kLanes, c.lane, zero, all);

  ROLLED for (p.half = 0; p.half < H / 2; ++p.half) {
    Rows<T> gaps[L], ntks[L], gap_backs[L], ntk_backs[L];
    UNROLL for (int l = 0; l < L; ++l) {
      gaps[l].clear(), ntks[l].clear();
      gap_backs[l].clear(), ntk_backs[l].clear();
    }
    // Rows before each ReLU, the newest first, until they are needed.
    Lane<T> gap_kept[L][2 * L - 1][4], ntk_kept[L][2 * L - 1][4];
    UNROLL for (int l = 0; l < L; ++l)
      UNROLL for (int d = 0; d < 2 * L - 1; ++d)
        UNROLL for (int k = 0; k < 4; ++k)
          gap_kept[l][d][k] = ntk_kept[l][d][k] = zero;

    ROLLED for (int t = 0; t < H + 2 * L; ++t) {
      Lane<T> g[4], n[4];
      input_row<T, kImages>(a, p, t, g, n);
      UNROLL for (int l = 0; l < L; ++l) {
        const int y = t - l - 1;
        window_of_gap(a, p, l, y + 1, gaps[l], g);
        if (!kImages || l > 0) window(p, y + 1, a.scale[l], ntks[l], n);
        UNROLL for (int k = 0; k < 4; ++k) {
          UNROLL for (int d = 2 * (L - 1 - l); d > 0; --d) {
            gap_kept[l][d][k] = gap_kept[l][d - 1][k];
            ntk_kept[l][d][k] = ntk_kept[l][d - 1][k];
          }
          gap_kept[l][0][k] = g[k], ntk_kept[l][0][k] = n[k];
        }
        if (l < L - 1 && 0 <= y && y < H)
          UNROLL for (int k = 0; k < 4; ++k)
            relu_forward(relu_at(p, l, y, k, g[k]), g[k], n[k]);
      }
      int y = t - L;
      UNROLL for (int k = 0; k < 4; ++k) g[k] = n[k] = zero;
      if (0 <= y && y < H)
        UNROLL for (int k = 0; k < 4; ++k) {
          const bool row_ahead = k / 2 && y % 2 == 0;
          const int shift_row = (p.half + row_ahead) % (H / 2);
          Lane<int> shift = c.half_shift;
          if (k % 2)
            shift = pick(c.odd, shift, (shift + 1) % (W / 2));
          Lane<int> at = ((shift + shift_row * (W / 2)) * (H / 2) + y / 2)
              * (W / 2) + c.x / 2;
          g[k] = load(gap_slope, at), n[k] = load(ntk_slope, at);
        }
      UNROLL for (int l = L - 1; l >= 0; --l) {
        y = t - L - (L - 1 - l);
        if (0 <= y && y < H) {
          Lane<T> q1[4], q2[4];
          UNROLL for (int k = 0; k < 4; ++k) {
            const int d = 2 * (L - 1 - l);
            Relu<T> r = relu_at(p, l, y, k, gap_kept[l][d][k]);
            relu_backward(r, l == L - 1, ntk_kept[l][d][k], g[k], n[k], q1[k],
                          q2[k]);
          }
          add_sums(p, sums1 + l * H * kLanes, sums2 + l * H * kLanes, y, q1,
                   q2);
        }
        window(p, y, a.scale[l], gap_backs[l], g);
        if (!kImages || l > 0) window(p, y, a.scale[l], ntk_backs[l], n);
      }
      y = t - 2 * L;
      if (y < 0) continue;
      if (kImages) {
        const T weight = T(-1) / T(a.channels);
        ROLLED for (int ch = 0; ch < a.channels; ++ch) {
          Lane<T> one = load(p.image1 + ch * p.area + y * W, c.x);
          Lane<T> v1[4], v2[4];
          UNROLL for (int k = 0; k < 4; ++k) {
            Lane<T> two = load(p.image2 + ch * p.area + p.row2(y, k) * W,
                               c.right[k % 2]);
            v1[k] = g[k] * two * weight, v2[k] = g[k] * one * weight;
          }
          const int at = (L + ch) * H * kLanes;
          add_sums(p, sums1 + at, sums2 + at, y, v1, v2);
        }
      } else {
        Lane<T> q[4];
        UNROLL for (int k = 0; k < 4; ++k) {
          poke(a.gap_back + back, p.in_map(y, k), g[k], c.active);
          poke(a.ntk_back + back, p.in_map(y, k), n[k], c.active);
          q[k] = g[k] * (T(-0.5) * p.alike);
        }
        add_sums(p, sums1 + L * H * kLanes, sums2 + L * H * kLanes, y, q, q);
      }
    }
  }
  const size_t to = (size_t(pair) * units_of(W) + unit) * planes * H * kLanes;
  const Lane<int> column = pick(
      c.active, c.lane / group_of(W) * group_of(W) + c.right[0], c.lane);
  for (int i = 0; i < planes * H; ++i) {
    poke(a.sums1 + to + i * kLanes, c.lane, peek(sums1 + i * kLanes, c.lane),
         all);
    poke(a.sums2 + to + i * kLanes, column, peek(sums2 + i * kLanes, c.lane),
         all);
  }
}
