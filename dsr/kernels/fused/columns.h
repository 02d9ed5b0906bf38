// Where a warp stands in a stage: its columns, shifts, planes and images.
#pragma once
#include "coefficients.h"
#include "lanes.h"

// Arrays of one call. Planes have a frame of zeros: (H + 2, W + 2).
template <class T> struct Stage {
  int height, width, channels;
  T scale[3], bias[3];             // W_std^2 / 9, b_std^2 of each convolution
  const int *lefts, *rights;       // (B,) which images a pair is made of
  const int *alike;                // (B,) 1, or 0 for norms of unlike size
  const T *image1, *image2;        // (N, C, H, W); a first stage only
  const T *gap, *ntk;              // (B, H, W, H, W) in shift order; others
  const T *planes1, *planes2;      // (N, L, 3, H + 2, W + 2): q / 2 before the
                                   // convolution, sqrt q after it, inverse
  T *gap_out, *ntk_out;            // (B, H / 2, W / 2, H / 2, W); forward
  const T *gap_slope, *ntk_slope;  // (B, H / 2, W / 2, H / 2, W / 2); backward
  T *gap_back, *ntk_back;          // as gap and ntk
  T *sums1, *sums2;                // (B, units, planes, H, 32)
};

BOTH int group_of(int width) { return width > 16 ? 32 : width > 8 ? 16 : 8; }

BOTH int units_of(int width) {
  const int each = kLanes / group_of(width);
  return (width / 2 + each - 1) / each;
}

DEVICE int wrapped(int y, int size) { return y < 0 ? y + size : y; }

// The lanes of a warp: columns x of the left image, pooled shifts, and for
// shifts 2 S + {0, 1} the column of the right image and the cuts of the map.
struct Columns {
  Lane<int> lane, x, half_shift, right[2], next;
  Lane<bool> active, odd, cut_left[2], cut_right[2];
};

DEVICE Columns columns_of(int width, int unit) {
  const int group = group_of(width);
  Columns c;
  c.lane = lane_index();
  c.x = c.lane % group;
  c.half_shift = c.lane / group + unit * (kLanes / group);
  c.active = c.x < width && c.half_shift < width / 2;
  c.x = lesser(c.x, Lane<int>(width - 1));  // Idle lanes stay in bounds.
  c.half_shift = lesser(c.half_shift, Lane<int>(width / 2 - 1));
  c.odd = c.x % 2 == 1;
  c.next = c.lane / group * group + (c.x + 1) % width;
  for (int e = 0; e < 2; ++e) {
    Lane<int> at = c.x - (c.half_shift * 2 + e);
    c.right[e] = pick(at < 0, at + width, at);
    c.cut_left[e] = c.x == 0 || c.right[e] == 0;
    c.cut_right[e] = c.x == width - 1 || c.right[e] == width - 1;
  }
  return c;
}

// One pair and the shifts 2 (half, c.half_shift) + {0, 1}^2; k counts them,
// rows first.
template <class T> struct Place {
  int H, W, pitch, plane, area, half;
  T alike;  // Twice the pair's share: gap = share (q1 + q2) - k, see `layers`.
  const T *planes1, *planes2, *image1, *image2, *gap, *ntk;
  Columns c;

  DEVICE int row2(int y, int k) const {
    return wrapped(y - 2 * half - k / 2, H);
  }
  DEVICE Lane<int> in_map(int y, int k) const {
    return (c.half_shift * 2 + (k % 2 + (2 * half + k / 2) * W)) * area
        + (c.x + y * W);
  }
};

template <class T, int L>
DEVICE Place<T> place_of(const Stage<T>& a, int pair, int unit) {
  Place<T> p;
  p.H = a.height, p.W = a.width, p.area = p.H * p.W, p.half = 0;
  p.pitch = p.W + 2, p.plane = (p.H + 2) * p.pitch;
  p.alike = a.alike[pair];
  const size_t left = a.lefts[pair], right = a.rights[pair];
  p.planes1 = a.planes1 + left * (3 * L * p.plane);
  p.planes2 = a.planes2 + right * (3 * L * p.plane);
  p.image1 = a.image1 + left * (a.channels * p.area);
  p.image2 = a.image2 + right * (a.channels * p.area);
  p.gap = a.gap + size_t(pair) * p.area * p.area;
  p.ntk = a.ntk + size_t(pair) * p.area * p.area;
  p.c = columns_of(p.W, unit);
  return p;
}
