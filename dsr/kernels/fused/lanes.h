// Values of the 32 lanes of one warp, so that `stage.h` is written once.
//
// On a GPU a Lane<T> is one number a thread, and `up`, `down`, `swap` are
// shuffles. On a CPU it is an array of 32 numbers, and the compiler vectorises
// the loops over it. Control flow in `stage.h` is the same for all lanes.
#pragma once
#include <cmath>
#include <cstddef>

constexpr int kLanes = 32;

#ifdef __CUDACC__

#define DEVICE __device__ __forceinline__
#define BOTH __host__ __device__ inline
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")

template <class T> struct LaneOf { using type = T; };
template <class T> using Lane = typename LaneOf<T>::type;

DEVICE int lane_index() { return threadIdx.x % kLanes; }
DEVICE float root_of(float x) {
  float y;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE double root_of(double x) { return sqrt(x); }
DEVICE float inverse_of(float x) { return __fdividef(1.0f, x); }
DEVICE double inverse_of(double x) { return 1 / x; }
template <class T> DEVICE T lesser(T a, T b) { return a < b ? a : b; }
template <class T> DEVICE T greater(T a, T b) { return a < b ? b : a; }
template <class T> DEVICE T pick(bool m, T a, T b) { return m ? a : b; }
template <class T> DEVICE T up(T v) { return __shfl_up_sync(~0u, v, 1); }
template <class T> DEVICE T down(T v) { return __shfl_down_sync(~0u, v, 1); }
template <class T> DEVICE T swap(T v) { return __shfl_xor_sync(~0u, v, 1); }
// The value of another lane.
template <class T> DEVICE T from(T v, int lane) {
  return __shfl_sync(~0u, v, lane);
}
// p + i with a 32-bit offset, which the address modes of the machine add to a
// base that all lanes share. Arrays of one pair are far smaller than 4 GB.
template <class T> DEVICE T* offset(T* p, unsigned i) {
  return (T*)((char*)p + i * unsigned(sizeof(T)));
}
template <class T> DEVICE T load(const T* p, int i) {
  return __ldg(offset(p, i));
}
// The load only where `m`, else `other`.
template <class T> DEVICE T load_where(bool m, const T* p, int i, T other) {
  return m ? __ldg(offset(p, i)) : other;
}
// Plain loads and stores, for memory that the kernel itself writes.
template <class T> DEVICE T peek(const T* p, int i) { return *offset(p, i); }
template <class T> DEVICE void poke(T* p, int i, T v, bool m) {
  if (m) *offset(p, i) = v;
}

#else

#define DEVICE inline
#define BOTH inline
#define UNROLL
#define ROLLED

template <class T> struct Lane {
  T v[kLanes];
  Lane() = default;
  Lane(T x) { for (T& e : v) e = x; }
};
template <class F> auto each(F f) -> Lane<decltype(f(0))> {
  Lane<decltype(f(0))> out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = f(i);
  return out;
}
#define LANE_OPERATOR(op) \
  template <class T> auto operator op(const Lane<T>& a, const Lane<T>& b) { \
    return each([&](int i) { return a.v[i] op b.v[i]; }); } \
  template <class T> auto operator op(const Lane<T>& a, T b) { \
    return each([&](int i) { return a.v[i] op b; }); } \
  template <class T> auto operator op(T a, const Lane<T>& b) { \
    return each([&](int i) { return a op b.v[i]; }); }
LANE_OPERATOR(+) LANE_OPERATOR(-) LANE_OPERATOR(*) LANE_OPERATOR(/)
LANE_OPERATOR(%) LANE_OPERATOR(<) LANE_OPERATOR(>) LANE_OPERATOR(==)
LANE_OPERATOR(&&) LANE_OPERATOR(||)
#undef LANE_OPERATOR

inline Lane<int> lane_index() { return each([](int i) { return i; }); }
template <class T> Lane<T> root_of(const Lane<T>& x) {
  return each([&](int i) { return std::sqrt(x.v[i]); });
}
template <class T> Lane<T> inverse_of(const Lane<T>& x) {
  return each([&](int i) { return 1 / x.v[i]; });
}
template <class T> Lane<T> lesser(const Lane<T>& a, const Lane<T>& b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
template <class T> Lane<T> greater(const Lane<T>& a, const Lane<T>& b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? b.v[i] : a.v[i]; });
}
template <class T>
Lane<T> pick(const Lane<bool>& m, const Lane<T>& a, const Lane<T>& b) {
  return each([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; });
}
template <class T> Lane<T> up(const Lane<T>& x) {
  return each([&](int i) { return x.v[i ? i - 1 : 0]; });
}
template <class T> Lane<T> down(const Lane<T>& x) {
  return each([&](int i) { return x.v[i < kLanes - 1 ? i + 1 : i]; });
}
template <class T> Lane<T> swap(const Lane<T>& x) {
  return each([&](int i) { return x.v[i ^ 1]; });
}
template <class T> Lane<T> from(const Lane<T>& x, const Lane<int>& at) {
  return each([&](int i) { return x.v[at.v[i]]; });
}
template <class T> Lane<T> load(const T* p, const Lane<int>& at) {
  return each([&](int i) { return p[at.v[i]]; });
}
template <class T> Lane<T> load_where(
    const Lane<bool>& m, const T* p, const Lane<int>& at, const Lane<T>& b) {
  return each([&](int i) { return m.v[i] ? p[at.v[i]] : b.v[i]; });
}
template <class T> Lane<T> peek(const T* p, const Lane<int>& at) {
  return load(p, at);
}
template <class T>
void poke(T* p, const Lane<int>& at, const Lane<T>& x, const Lane<bool>& m) {
  for (int i = 0; i < kLanes; ++i) if (m.v[i]) p[at.v[i]] = x.v[i];
}

#endif
