// CPU kernels, float32, as custom operators: the layers that light networks spend their time in,
// upsampling, and the transforms of Winograd's convolutions.
//
// An operator is a function as MindSpore's "aot" operators have it: pointers to inputs, then outputs,
// their ranks and shapes. Beside it stands NAMEInferShape, which gives the shapes of its outputs, or
// -1 for sizes that are unknown when a graph is compiled. Maps are N×C×H×W, sizes of any value.
//
// Arithmetic is in GCC's vectors (Clang has them too), which each instruction set maps to its own.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

typedef std::vector<int64_t> Shape;

constexpr int64_t kLanes = 8;
typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef float Unaligned __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vector Load(const float *from) { return *reinterpret_cast<const Unaligned *>(from); }
inline void Store(float *to, Vector v) { *reinterpret_cast<Unaligned *>(to) = v; }

// The first `count` lanes; the others are zero.
inline Vector Load(const float *from, int64_t count) {
  if (count >= kLanes) return Load(from);
  Vector v{};
  std::memcpy(&v, from, sizeof(float) * count);
  return v;
}

inline void Store(float *to, Vector v, int64_t count) {
  if (count >= kLanes) return Store(to, v);
  std::memcpy(to, &v, sizeof(float) * count);
}

inline float Sum(Vector v) {
  typedef float Half __attribute__((vector_size(2 * kLanes)));
  Half low, high;
  std::memcpy(&low, &v, sizeof(low));
  std::memcpy(&high, reinterpret_cast<char *>(&v) + sizeof(low), sizeof(high));
  low += high;
  return (low[0] + low[2]) + (low[1] + low[3]);
}

inline int64_t RoundUp(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

int num_threads = 1;

// Threads that wait for work. Whoever asks works, too, and waits for nobody who has not begun: on a
// busy machine a thread may wake long after all is done.
class Pool {
 public:
  static Pool &Get() {
    static Pool *pool = new Pool;  // never destroyed, as its threads are never joined
    return *pool;
  }

  void Run(int64_t count, std::function<void(int64_t)> work) {
    auto job = std::make_shared<Job>(count, std::move(work));
    if (num_threads > 1 && count > 1) {
      std::lock_guard<std::mutex> lock(mutex_);
      for (; threads_ < num_threads - 1; threads_++) std::thread([this] { Serve(); }).detach();
      job_ = job;
      changed_.notify_all();
    }
    job->Help();
    while (job->done < count) std::this_thread::yield();
  }

 private:
  struct Job {
    Job(int64_t count, std::function<void(int64_t)> work) : count(count), work(std::move(work)) {}
    void Help() {
      for (int64_t i; (i = next++) < count; done++) work(i);
    }
    const int64_t count;
    const std::function<void(int64_t)> work;
    std::atomic<int64_t> next{0}, done{0};
  };

  void Serve() {
    std::shared_ptr<Job> job;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return job_ != job; });
        job = job_;
      }
      job->Help();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Job> job_;
  int threads_ = 0;
};

// Calls work(0) … work(count - 1), on all threads; whoever is free takes the next.
template <typename Work>
void Parallel(int64_t count, Work work) {
  Pool::Get().Run(count, std::move(work));
}

// The same in groups of about 2^16 values, where each call handles `size` of them.
template <typename Work>
void ParallelGroups(int64_t count, int64_t size, Work work) {
  const int64_t group = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(size, 1));
  Parallel((count + group - 1) / group, [&](int64_t part) {
    for (int64_t i = part * group; i < std::min(count, (part + 1) * group); i++) work(i);
  });
}

// Calls f(at, values of a, values of b, how many) along a row.
template <typename F>
inline void Along(const float *a, const float *b, int64_t size, F f) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) f(i, Load(a + i), Load(b + i), kLanes);
  if (i < size) f(i, Load(a + i, size - i), Load(b + i, size - i), size - i);
}

float RowSum(const float *row, int64_t size) {
  Vector sum{};
  Along(row, row, size, [&](int64_t, Vector v, Vector, int64_t) { sum += v; });
  return Sum(sum);
}

// Sum of (x - mean)².
float SquareSum(const float *row, float mean, int64_t size) {
  Vector sum{};
  Along(row, row, size, [&](int64_t, Vector v, Vector, int64_t count) {
    v -= mean;
    for (int64_t i = count; i < kLanes; i++) v[i] = 0;
    sum += v * v;
  });
  return Sum(sum);
}

int64_t Product(const int64_t *shape, int from, int to) {
  int64_t product = 1;
  for (int i = from; i < to; i++) product *= shape[i];
  return product;
}

// ---- Depthwise convolutions: odd K×K kernels, stride S, the output has ceil(size / S) ----

struct Geometry {
  int64_t height, width, out_height, out_width;
  int64_t top, left;  // margins of zeros
};

// `same` shares the margins out as TensorFlow does, otherwise they are K / 2.
Geometry Resolve(const int64_t *shape, int64_t kernel, int64_t stride, bool same) {
  Geometry g{shape[2], shape[3], (shape[2] + stride - 1) / stride, (shape[3] + stride - 1) / stride,
             kernel / 2, kernel / 2};
  if (same) {
    g.top = std::max<int64_t>((g.out_height - 1) * stride + kernel - g.height, 0) / 2;
    g.left = std::max<int64_t>((g.out_width - 1) * stride + kernel - g.width, 0) / 2;
  }
  return g;
}

// A plane with its margins. Columns x of the same x % S stand side by side, so that a tap's values
// of neighbouring outputs do, too.
template <int K, int S>
class Padded {
 public:
  explicit Padded(const Geometry &g)
      : g_(g),
        pitch_(RoundUp(g.out_width, kLanes) + kLanes),
        rows_((g.out_height - 1) * S + K),
        plane_(rows_ * S * pitch_),
        line_(S * pitch_) {}

  const float *Tap(int64_t y, int64_t x, int i, int j) const {
    return plane_.data() + ((y * S + i) * S + j % S) * pitch_ + x + j / S;
  }

  void Fill(const float *plane) {
    const int64_t width = std::min(g_.width, S * pitch_ - g_.left);
    for (int64_t y = 0; y < std::min(g_.height, rows_ - g_.top); y++) {
      float *to = plane_.data() + (y + g_.top) * S * pitch_;
      float *line = S == 1 ? to : line_.data();
      std::memcpy(line + g_.left, plane + y * g_.width, sizeof(float) * width);
      if (S > 1)
        for (int phase = 0; phase < S; phase++)
          for (int64_t i = 0; i < pitch_; i++) to[phase * pitch_ + i] = line[S * i + phase];
    }
  }

 private:
  Geometry g_;
  int64_t pitch_, rows_;
  std::vector<float> plane_, line_;
};

// R rows of the output at once, for which a tap's weight is read once.
template <int K, int S, int R>
void ForwardRows(const Geometry &g, const Padded<K, S> &in, const float *weight, int64_t y, float *out) {
  for (int64_t x = 0; x < g.out_width; x += kLanes) {
    Vector sum[R]{};
    for (int i = 0; i < K; i++)
      for (int j = 0; j < K; j++)
        for (int r = 0; r < R; r++) sum[r] += weight[i * K + j] * Load(in.Tap(y + r, x, i, j));
    for (int r = 0; r < R; r++) Store(out + (y + r) * g.out_width + x, sum[r], g.out_width - x);
  }
}

template <int K, int S>
void DepthwiseForward(const int64_t *shape, bool same, const float *x, const float *weight, float *out) {
  constexpr int R = 4;
  const Geometry g = Resolve(shape, K, S, same);
  const int64_t in_size = g.height * g.width, out_size = g.out_height * g.out_width;
  Parallel(shape[1], [&](int64_t c) {
    Padded<K, S> in(g);
    for (int64_t i = c; i < shape[0] * shape[1]; i += shape[1]) {
      in.Fill(x + i * in_size);
      int64_t y = 0;
      for (; y + R <= g.out_height; y += R) ForwardRows<K, S, R>(g, in, weight + c * K * K, y, out + i * out_size);
      for (; y < g.out_height; y++) ForwardRows<K, S, 1>(g, in, weight + c * K * K, y, out + i * out_size);
    }
  });
}

// The gradient of the output with K / S rows and columns of zeros on all sides.
template <int K, int S>
class PaddedGradient {
 public:
  static constexpr int64_t kMargin = (K - 1) / S;

  explicit PaddedGradient(const Geometry &g)
      : g_(g),
        pitch_(RoundUp(std::max(g.out_width, (g.width + g.left) / S + 1), kLanes) + 2 * kMargin + kLanes),
        plane_((std::max(g.out_height, (g.height + g.top) / S + 1) + 2 * kMargin) * pitch_) {}

  const float *At(int64_t y, int64_t x) const { return plane_.data() + (y + kMargin) * pitch_ + kMargin + x; }
  int64_t pitch() const { return pitch_; }

  void Fill(const float *plane) {
    for (int64_t y = 0; y < g_.out_height; y++)
      std::memcpy(const_cast<float *>(At(y, 0)), plane + y * g_.out_width, sizeof(float) * g_.out_width);
  }

 private:
  Geometry g_;
  int64_t pitch_;
  std::vector<float> plane_;
};

// A row of the input's gradient gathers from the outputs that see it: per remainder of its column
// by S, the taps of that remainder.
template <int K, int S>
void InputGradient(const Geometry &g, const PaddedGradient<K, S> &dout, const float *weight, float *line, float *dx) {
  const int64_t begin = g.left / S, end = (g.width - 1 + g.left) / S + 1;
  for (int64_t y = 0; y < g.height; y++) {
    const int64_t at = y + g.top;
    for (int phase = 0; phase < S; phase++) {
      for (int64_t x = begin; x < end; x += kLanes) {
        Vector sum[2]{};  // two, since an addition waits for the one before
        for (int i = at % S; i < K; i += S)
          for (int j = phase; j < K; j += S) sum[j / S % 2] += weight[i * K + j] * Load(dout.At((at - i) / S, x - j / S));
        if (S == 1) {
          Store(dx + y * g.width + x - begin, sum[0] + sum[1], end - x);
        } else {
          sum[0] += sum[1];
          for (int64_t k = 0; k < kLanes; k++) line[S * (x - begin + k) + phase] = sum[0][k];
        }
      }
    }
    if (S > 1) std::memcpy(dx + y * g.width, line + g.left % S, sizeof(float) * g.width);
  }
}

template <int K, int S>
void WeightGradient(const Geometry &g, const Padded<K, S> &in, const PaddedGradient<K, S> &dout, Vector *dweight) {
  for (int i = 0; i < K; i++) {
    Vector sum[K];
    std::copy_n(dweight + i * K, K, sum);
    for (int64_t y = 0; y < g.out_height; y++) {
      for (int64_t x = 0; x < g.out_width; x += kLanes) {
        const Vector d = Load(dout.At(y, x));
        for (int j = 0; j < K; j++) sum[j] += d * Load(in.Tap(y, x, i, j));
      }
    }
    std::copy_n(sum, K, dweight + i * K);
  }
}

template <int K, int S>
void DepthwiseBackward(const int64_t *shape, bool same, const float *x, const float *weight, const float *dout,
                       float *dx, float *dweight) {
  const Geometry g = Resolve(shape, K, S, same);
  const int64_t in_size = g.height * g.width, out_size = g.out_height * g.out_width;
  Parallel(shape[1], [&](int64_t c) {
    Padded<K, S> in(g);
    PaddedGradient<K, S> gradient(g);
    std::vector<float> line(S * (gradient.pitch() + kLanes));
    Vector sums[K * K]{};
    for (int64_t i = c; i < shape[0] * shape[1]; i += shape[1]) {
      in.Fill(x + i * in_size);
      gradient.Fill(dout + i * out_size);
      InputGradient<K, S>(g, gradient, weight + c * K * K, line.data(), dx + i * in_size);
      WeightGradient<K, S>(g, in, gradient, sums);
    }
    for (int k = 0; k < K * K; k++) dweight[c * K * K + k] = Sum(sums[k]);
  });
}

// ---- 1×1 convolutions: products of a weight matrix and the pixels of each image ----

constexpr int kTileRows = 6;                 // with two vectors of columns, what registers hold
constexpr int64_t kTileColumns = 2 * kLanes;
constexpr int64_t kDepth = 384;              // of a packed block of pixels, which is to stay in the cache
constexpr int64_t kColumns = 16 * kTileColumns;

// out = or += a · b of packed a[depth][kTileRows] and b[depth][kTileColumns].
void ProductTile(int64_t depth, const float *a, const float *b, bool add, int64_t rows, int64_t columns,
                 int64_t pitch, float *out) {
  Vector sum[kTileRows][2]{};
  for (int64_t k = 0; k < depth; k++, a += kTileRows, b += kTileColumns) {
    const Vector b0 = Load(b), b1 = Load(b + kLanes);
#pragma GCC unroll 6
    for (int i = 0; i < kTileRows; i++) {
      sum[i][0] += a[i] * b0;
      sum[i][1] += a[i] * b1;
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < kTileRows; i++) {
    for (int j = 0; j < 2; j++) {
      const int64_t count = columns - j * kLanes;
      if (i >= rows || count <= 0) break;
      float *to = out + i * pitch + j * kLanes;
      if (add) sum[i][j] += Load(to, count);
      Store(to, sum[i][j], count);
    }
  }
}

// out[n] (rows × size) = w · x[n] (depth × size), or = wᵀ · x[n]
void Pointwise(int64_t images, int64_t rows, int64_t depth, int64_t size, const float *w, bool transposed,
               const float *x, float *out) {
  const int64_t panels = (rows + kTileRows - 1) / kTileRows, blocks = (size + kColumns - 1) / kColumns;
  std::vector<float> packed(panels * depth * kTileRows);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < depth; k++)
      packed[(r / kTileRows * depth + k) * kTileRows + r % kTileRows] = w[transposed ? k * rows + r : r * depth + k];
  Parallel(images * blocks, [&](int64_t task) {
    const int64_t n = task / blocks, begin = task % blocks * kColumns, width = std::min(kColumns, size - begin);
    thread_local std::vector<float> pixels(kDepth * kColumns);
    for (int64_t first = 0; first < depth; first += kDepth) {
      const int64_t count = std::min(kDepth, depth - first);
      for (int64_t k = 0; k < count; k++) {
        const float *from = x + (n * depth + first + k) * size + begin;
        for (int64_t c = 0; c < width; c += kLanes)
          Store(&pixels[(c / kTileColumns * count + k) * kTileColumns + c % kTileColumns], Load(from + c, width - c));
      }
      for (int64_t p = 0; p < panels; p++)
        for (int64_t c = 0; c < width; c += kTileColumns)
          ProductTile(count, &packed[(p * depth + first) * kTileRows], &pixels[c * count], first > 0,
                      rows - p * kTileRows, width - c, size, out + (n * rows + p * kTileRows) * size + begin + c);
    }
  });
}

constexpr int kDotRows = 4, kDotColumns = 3;

// out[i][j] += the product of row i of a and row j of b. Not inlined, or GCC runs out of registers.
__attribute__((noinline)) void DotTile(int64_t length, const float *a, const float *b, int64_t pitch,
                                       int64_t out_pitch, float *out) {
  Vector sum[kDotRows][kDotColumns]{};
  for (int64_t k = 0; k < length; k += kLanes, a += kLanes, b += kLanes) {
    const Vector b0 = Load(b), b1 = Load(b + pitch), b2 = Load(b + 2 * pitch);
#pragma GCC unroll 4
    for (int i = 0; i < kDotRows; i++) {
      const Vector left = Load(a + i * pitch);
      sum[i][0] += left * b0;
      sum[i][1] += left * b1;
      sum[i][2] += left * b2;
    }
  }
  for (int i = 0; i < kDotRows; i++)
    for (int j = 0; j < kDotColumns; j++) out[i * out_pitch + j] += Sum(sum[i][j]);
}

// dw (rows × columns) = the sum over all images of d[n] (rows × size) · x[n]ᵀ (size × columns)
void PointwiseWeightGradient(int64_t images, int64_t rows, int64_t columns, int64_t size, const float *d,
                             const float *x, float *dw) {
  constexpr int64_t kPixels = 256, kBlock = 8 * kDotColumns;
  // A task is a chunk of an image's pixels, or as many whole images as make a chunk
  const int64_t chunk = std::min(size, kPixels), wide = RoundUp(chunk, kLanes), chunks = (size + chunk - 1) / chunk;
  const int64_t group = std::max<int64_t>(1, kPixels / wide), groups = (images + group - 1) / group;
  const int64_t pitch = group * wide + kLanes;  // no power of two, whose rows would evict each other
  const int64_t all_rows = RoundUp(rows, kDotRows), all_columns = RoundUp(columns, kDotColumns);
  const int64_t parts = std::min<int64_t>(num_threads, groups * chunks);
  std::vector<float> sums(parts * all_rows * all_columns);
  Parallel(parts, [&](int64_t part) {  // of fixed tasks: the order of a sum decides its last bits
    std::vector<float> a(all_rows * pitch), b(all_columns * pitch);
    for (int64_t task = groups * chunks * part / parts; task < groups * chunks * (part + 1) / parts; task++) {
      const int64_t begin = task % chunks * chunk, width = std::min(chunk, size - begin);
      const int64_t first = task / chunks * group, count = std::min(group, images - first);
      auto gather = [&](const float *from, int64_t channels, std::vector<float> &to) {
        for (int64_t n = 0; n < count; n++)
          for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < wide; i += kLanes)
              Store(&to[c * pitch + n * wide + i],
                    Load(from + ((first + n) * channels + c) * size + begin + i, std::max<int64_t>(width - i, 0)));
      };
      gather(d, rows, a);
      gather(x, columns, b);
      for (int64_t block = 0; block < columns; block += kBlock)
        for (int64_t r = 0; r < rows; r += kDotRows)
          for (int64_t c = block; c < std::min(columns, block + kBlock); c += kDotColumns)
            DotTile(count * wide, &a[r * pitch], &b[c * pitch], pitch, all_columns,
                    &sums[(part * all_rows + r) * all_columns + c]);
    }
  });
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < columns; c++) {
      float sum = 0;
      for (int64_t part = 0; part < parts; part++) sum += sums[(part * all_rows + r) * all_columns + c];
      dw[r * columns + c] = sum;
    }
  }
}

// ---- Activations ----

// Relative error below 2e-7 (the polynomial of Moshier's Cephes library); NaN stays NaN.
inline Vector Exp(Vector x) {
  typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));
  const Vector lowest = Vector{} - 87.3f, highest = Vector{} + 88.3f;
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;
  constexpr float kRounds = 12582912.f;  // 1.5 · 2^23, beyond which there are no fractions
  const Vector power = (x * 1.44269504f + kRounds) - kRounds;
  x = x - power * 0.693359375f + power * 2.12194440e-4f;  // log 2 in two parts
  Vector p = x * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * x + 8.3334519073e-3f;
  p = p * x + 4.1665795894e-2f;
  p = p * x + 1.6666665459e-1f;
  p = p * x + 5.0000001201e-1f;
  p = p * x * x + x + 1.0f;
  const Integers bits = (__builtin_convertvector(power, Integers) + 127) << 23;
  Vector scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return p * scale;
}

inline Vector Sigmoid(Vector x) { return 1.0f / (1.0f + Exp(-x)); }

struct Swish {
  static Vector Value(Vector x) { return x * Sigmoid(x); }
  static Vector Slope(Vector x) {
    const Vector s = Sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
  }
};

// By tanh, of which (1 + tanh(u)) / 2 is sigmoid(2u).
struct Gelu {
  static constexpr float kScale = 2 * 0.7978845608f, kCubic = 0.044715f;  // 2·√(2/π)
  static Vector Value(Vector x) { return x * Sigmoid(kScale * (x + kCubic * x * x * x)); }
  static Vector Slope(Vector x) {
    const Vector s = Sigmoid(kScale * (x + kCubic * x * x * x));
    return s * (1.0f + x * (1.0f - s) * kScale * (1.0f + 3 * kCubic * x * x));
  }
};

struct Relu {
  static Vector Value(Vector x) { return x < 0.0f ? Vector{} : x; }
  static Vector Slope(Vector x) { return x > 0.0f ? Vector{} + 1.0f : Vector{}; }
};

struct HardSwish {
  static Vector Value(Vector x) {
    const Vector inside = x * (x + 3.0f) / 6.0f;
    return x > 3.0f ? x : x < -3.0f ? Vector{} : inside;
  }
  static Vector Slope(Vector x) {
    const Vector inside = (2.0f * x + 3.0f) / 6.0f;
    return x > 3.0f ? Vector{} + 1.0f : x < -3.0f ? Vector{} : inside;
  }
};

struct Identity {
  static Vector Value(Vector x) { return x; }
};

template <typename F>
void Elementwise(int64_t size, const float *a, const float *b, float *out, F f) {
  constexpr int64_t kChunk = 1 << 15;
  Parallel((size + kChunk - 1) / kChunk, [&](int64_t part) {
    const int64_t begin = part * kChunk;
    Along(a + begin, b + begin, std::min(size - begin, kChunk), [&](int64_t at, Vector u, Vector v, int64_t count) {
      Store(out + begin + at, f(u, v), count);
    });
  });
}

// ---- Normalisation, of batches with the activation that follows ----

// Normalised values are x · scale + shift.
struct Affine {
  float scale, shift;
  Affine(float gamma, float beta, float mean, float variance, float epsilon)
      : scale(gamma / std::sqrt(variance + epsilon)), shift(beta - mean * scale) {}
  Vector operator()(Vector x) const { return x * scale + shift; }
};

// Beside y the batch's mean and variance, and the running ones moved towards them by `momentum`.
template <typename Act>
void BatchNorm(const int64_t *shape, const float *x, const float *gamma, const float *beta, const float *old_mean,
               const float *old_variance, float epsilon, float momentum, float *y, float *mean, float *variance,
               float *new_mean, float *new_variance) {
  const int64_t channels = shape[1], size = shape[2] * shape[3], planes = shape[0] * channels;
  const int64_t count = shape[0] * size;
  Parallel(channels, [&](int64_t c) {
    double sum = 0, squares = 0;
    for (int64_t i = c; i < planes; i += channels) sum += RowSum(x + i * size, size);
    mean[c] = sum / count;
    for (int64_t i = c; i < planes; i += channels) squares += SquareSum(x + i * size, mean[c], size);
    variance[c] = squares / count;
    const float unbiased = squares / std::max<int64_t>(count - 1, 1);
    new_mean[c] = old_mean[c] + momentum * (mean[c] - old_mean[c]);
    new_variance[c] = old_variance[c] + momentum * (unbiased - old_variance[c]);
    const Affine affine(gamma[c], beta[c], mean[c], variance[c], epsilon);
    for (int64_t i = c; i < planes; i += channels)
      Along(x + i * size, x + i * size, size, [&](int64_t at, Vector v, Vector, int64_t part) {
        Store(y + i * size + at, Act::Value(affine(v)), part);
      });
  });
}

template <typename Act>
void BatchNormInference(const int64_t *shape, const float *x, const float *gamma, const float *beta,
                        const float *mean, const float *variance, float epsilon, float *y) {
  const int64_t channels = shape[1], size = shape[2] * shape[3];
  ParallelGroups(shape[0] * channels, size, [=](int64_t i) {
    const int64_t c = i % channels;
    const Affine affine(gamma[c], beta[c], mean[c], variance[c], epsilon);
    Along(x + i * size, x + i * size, size, [&](int64_t at, Vector v, Vector, int64_t part) {
      Store(y + i * size + at, Act::Value(affine(v)), part);
    });
  });
}

// `fixed` statistics do not depend on x.
template <typename Act>
void BatchNormGradient(const int64_t *shape, bool fixed, const float *x, const float *gamma, const float *beta,
                       const float *mean, const float *variance, float epsilon, const float *dy, float *dx,
                       float *dgamma, float *dbeta) {
  const int64_t channels = shape[1], size = shape[2] * shape[3], planes = shape[0] * channels;
  constexpr bool active = !std::is_same<Act, Identity>::value;
  Parallel(channels, [&](int64_t c) {
    double sum = 0, products = 0;
    const Affine affine(gamma[c], beta[c], mean[c], variance[c], epsilon);
    for (int64_t i = c; i < planes; i += channels) {
      Vector sums{}, sums_of_products{};
      Along(x + i * size, dy + i * size, size, [&](int64_t at, Vector v, Vector d, int64_t part) {
        if constexpr (active) {
          d *= Act::Slope(affine(v));
          Store(dx + i * size + at, d, part);  // for the second pass
        }
        sums += d;
        sums_of_products += (v - mean[c]) * d;
      });
      sum += Sum(sums);
      products += Sum(sums_of_products);
    }
    const float inverse = 1 / std::sqrt(variance[c] + epsilon), share = fixed ? 0.f : 1.f / (shape[0] * size);
    dbeta[c] = sum;
    dgamma[c] = products * inverse;
    const float shift = sum * share, slope = products * inverse * inverse * share;
    for (int64_t i = c; i < planes; i += channels)
      Along(x + i * size, (active ? dx : dy) + i * size, size, [&](int64_t at, Vector v, Vector d, int64_t part) {
        Store(dx + i * size + at, affine.scale * (d - shift - (v - mean[c]) * slope), part);
      });
  });
}

void LayerNorm(int64_t rows, int64_t size, const float *x, const float *gamma, const float *beta, float epsilon,
               float *y) {
  ParallelGroups(rows, size, [&](int64_t r) {
    const float *row = x + r * size;
    const float mean = RowSum(row, size) / size;
    const float inverse = 1 / std::sqrt(SquareSum(row, mean, size) / size + epsilon);
    Along(gamma, beta, size, [&](int64_t at, Vector scale, Vector shift, int64_t count) {
      Store(y + r * size + at, (Load(row + at, count) - mean) * inverse * scale + shift, count);
    });
  });
}

// Calls work(row, sums) for all rows; `out` gets the totals of `size` sums over threads.
template <typename Work>
void SumOverRows(int64_t rows, int64_t size, float *out, Work work) {
  const int64_t parts = std::min<int64_t>(rows, num_threads);
  std::vector<float> sums(parts * size);
  Parallel(parts, [&](int64_t part) {
    for (int64_t r = rows * part / parts; r < rows * (part + 1) / parts; r++) work(r, &sums[part * size]);
  });
  std::fill_n(out, size, 0.f);
  for (int64_t i = 0; i < parts * size; i++) out[i % size] += sums[i];
}

void LayerNormGradient(int64_t rows, int64_t size, const float *x, const float *gamma, float epsilon,
                       const float *dy, float *dx, float *dgamma, float *dbeta) {
  std::vector<float> totals(2 * size);
  SumOverRows(rows, 2 * size, totals.data(), [&](int64_t r, float *sums) {
    const float *row = x + r * size, *d_row = dy + r * size;
    const float mean = RowSum(row, size) / size;
    const float inverse = 1 / std::sqrt(SquareSum(row, mean, size) / size + epsilon);
    Vector sum{}, products{};
    Along(row, d_row, size, [&](int64_t at, Vector v, Vector d, int64_t count) {
      d *= Load(gamma + at, count);
      sum += d;
      products += d * (v - mean);
    });
    const float shift = Sum(sum) / size, slope = Sum(products) * inverse * inverse / size;
    Along(row, d_row, size, [&](int64_t at, Vector v, Vector d, int64_t count) {
      v -= mean;
      Store(sums + at, Load(sums + at, count) + d * v * inverse, count);
      Store(sums + size + at, Load(sums + size + at, count) + d, count);
      Store(dx + r * size + at, inverse * (d * Load(gamma + at, count) - shift - v * slope), count);
    });
  });
  std::copy_n(totals.data(), size, dgamma);
  std::copy_n(totals.data() + size, size, dbeta);
}

// ---- Maps as rows of channels, one a pixel, and back ----

// to[n] (columns × rows) = from[n] (rows × columns)ᵀ
void Transpose(int64_t count, int64_t rows, int64_t columns, const float *from, float *to) {
  constexpr int64_t kSide = 16;
  const int64_t bands = (columns + kSide - 1) / kSide;
  Parallel(count * bands, [&](int64_t task) {
    const int64_t n = task / bands, first = task % bands * kSide, last = std::min(first + kSide, columns);
    const float *in = from + n * rows * columns;
    float *out = to + n * rows * columns;
    for (int64_t block = 0; block < rows; block += kSide)
      for (int64_t c = first; c < last; c++)
        for (int64_t r = block; r < std::min(block + kSide, rows); r++) out[c * rows + r] = in[r * columns + c];
  });
}

// ---- Transposed convolutions of kernel 2F, stride F and padding F / 2, by one matrix product ----
//
// An output row t - F / 2 sums the input rows t / F and t / F - 1, each times a row of the kernel. So an
// input of H×W has (H + 1)×(W + 1) neighbourhoods of four pixels, of which each gives F² outputs of a class.

// to: 4·C rows, of the pixels up and to the left by (0, 0), (0, 1), (1, 0), (1, 1); columns n, y, x
void Neighbourhoods(const int64_t *shape, const float *from, float *to) {
  const int64_t count = shape[0], channels = shape[1], height = shape[2], width = shape[3];
  Parallel(4 * channels * count, [=](int64_t task) {
    const int64_t n = task % count, row = task / count, c = row % channels, up = row / channels / 2;
    const int64_t left = row / channels % 2;
    const float *plane = from + (n * channels + c) * height * width;
    float *out = to + task * (height + 1) * (width + 1);
    std::fill_n(out, (height + 1) * (width + 1), 0.f);
    for (int64_t y = 0; y < height; y++)
      std::copy_n(plane + y * width, width, out + (y + up) * (width + 1) + left);
  });
}

// The gradient of that: each pixel sums its places in four neighbourhoods.
void NeighbourhoodsGradient(const int64_t *shape, const float *from, float *to) {
  const int64_t count = shape[0], channels = shape[1], height = shape[2], width = shape[3];
  Parallel(count * channels, [=](int64_t task) {
    const int64_t n = task / channels, c = task % channels;
    float *plane = to + task * height * width;
    std::fill_n(plane, height * width, 0.f);
    for (int64_t place = 0; place < 4; place++) {
      const float *in = from + ((place * channels + c) * count + n) * (height + 1) * (width + 1);
      for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++)
          plane[y * width + x] += in[(y + place / 2) * (width + 1) + x + place % 2];
    }
  });
}

// Calls row(output row or -1, rows of F columns each) for what each row of neighbourhoods gives; the
// `phases` are F² rows a class, columns n, y, x.
template <typename Row>
void AlongPhases(int64_t count, int64_t channels, int64_t height, int64_t width, int64_t factor, Row row) {
  const int64_t columns = count * (height + 1) * (width + 1);
  Parallel(count * channels * (height + 1), [=](int64_t task) {
    const int64_t y = task % (height + 1), n = task / (height + 1) % count, c = task / (height + 1) / count;
    for (int64_t i = 0; i < factor; i++) {
      const int64_t out = y * factor + i - factor / 2;
      const int64_t first = (c * factor + i) * factor * columns + (n * (height + 1) + y) * (width + 1);
      const bool inside = out >= 0 && out < height * factor;
      row(inside ? ((n * channels + c) * height * factor + out) * width * factor : -1, first, columns);
    }
  });
}

void PhasesToMaps(int64_t count, int64_t channels, int64_t height, int64_t width, int64_t factor,
                  const float *phases, float *maps) {
  AlongPhases(count, channels, height, width, factor, [=](int64_t out, int64_t first, int64_t columns) {
    if (out < 0) return;
    for (int64_t x = 0; x <= width; x++) {
      const int64_t shift = x * factor - factor / 2;
      const int64_t from = x == 0 ? factor / 2 : 0, to = x == width ? factor / 2 : factor;
      for (int64_t j = from; j < to; j++) maps[out + shift + j] = phases[first + j * columns + x];
    }
  });
}

void MapsToPhases(int64_t count, int64_t channels, int64_t height, int64_t width, int64_t factor,
                  const float *maps, float *phases) {
  AlongPhases(count, channels, height, width, factor, [=](int64_t out, int64_t first, int64_t columns) {
    for (int64_t j = 0; j < factor; j++)
      for (int64_t x = 0; x <= width; x++) {
        const int64_t at = x * factor - factor / 2 + j;
        const bool inside = out >= 0 && at >= 0 && at < width * factor;
        phases[first + j * columns + x] = inside ? maps[out + at] : 0;
      }
  });
}

// Weights Cin×Cout×2F×2F as a matrix of (Cout, F, F) rows and (2, 2, Cin) columns, or the reverse.
void WeightMatrix(const int64_t *shape, bool reverse, const float *from, float *to) {
  const int64_t in = shape[0], out = shape[1], factor = shape[2] / 2;
  Parallel(in * out, [=](int64_t task) {
    const int64_t i = task / out, o = task % out;
    for (int64_t y = 0; y < 2 * factor; y++)
      for (int64_t x = 0; x < 2 * factor; x++) {
        const int64_t row = (o * factor + y % factor) * factor + x % factor;
        const int64_t matrix = (row * 4 + y / factor * 2 + x / factor) * in + i;
        const int64_t kernel = (task * 2 * factor + y) * 2 * factor + x;
        to[reverse ? kernel : matrix] = from[reverse ? matrix : kernel];
      }
  });
}

// ---- Winograd's transforms: tiles of S×S values, by a matrix of 6×S, to and from the 6×6 Winograd domain ----

constexpr int64_t kWindow = 6, kDomain = kWindow * kWindow, kTile = 4;
constexpr int64_t kStaged = 32;  // tiles; their values lie far apart and are written in whole cache lines

// domain = M·tile·Mᵀ, one row of `stride` a value; gather(t, to) puts tile t at to[0], to[kLanes] ….
template <int S, typename Gather>
void IntoWinograd(int64_t tiles, const float *m, float *domain, int64_t stride, Gather gather) {
  alignas(64) float staged[kDomain * kStaged], tile[S * S * kLanes];
  for (int64_t first = 0; first < tiles; first += kStaged) {
    const int64_t count = std::min(kStaged, tiles - first);
    for (int64_t group = 0; group < count; group += kLanes) {
      std::fill_n(tile, S * S * kLanes, 0.f);
      for (int64_t i = 0; i < std::min(kLanes, count - group); i++) gather(first + group + i, tile + i);
      Vector rows[kWindow * S];
      for (int i = 0; i < kWindow; i++)
        for (int b = 0; b < S; b++) {
          Vector sum{};
          for (int a = 0; a < S; a++) sum += m[i * S + a] * Load(tile + (a * S + b) * kLanes);
          rows[i * S + b] = sum;
        }
      for (int i = 0; i < kWindow; i++)
        for (int j = 0; j < kWindow; j++) {
          Vector sum{};
          for (int b = 0; b < S; b++) sum += m[j * S + b] * rows[i * S + b];
          Store(staged + (i * kWindow + j) * kStaged + group, sum);
        }
    }
    for (int p = 0; p < kDomain; p++) std::copy_n(staged + p * kStaged, count, domain + p * stride + first);
  }
}

// The transpose of that: tile = Mᵀ·domain·M; scatter(t, from) takes it from from[0], from[kLanes] ….
template <int S, typename Scatter>
void OutOfWinograd(int64_t tiles, const float *m, const float *domain, int64_t stride, Scatter scatter) {
  alignas(64) float staged[kDomain * kStaged] = {}, tile[S * S * kLanes];
  for (int64_t first = 0; first < tiles; first += kStaged) {
    const int64_t count = std::min(kStaged, tiles - first);
    for (int p = 0; p < kDomain; p++) std::copy_n(domain + p * stride + first, count, staged + p * kStaged);
    for (int64_t group = 0; group < count; group += kLanes) {
      Vector rows[kWindow * S];
      for (int i = 0; i < kWindow; i++)
        for (int b = 0; b < S; b++) {
          Vector sum{};
          for (int j = 0; j < kWindow; j++)
            sum += m[j * S + b] * Load(staged + (i * kWindow + j) * kStaged + group);
          rows[i * S + b] = sum;
        }
      for (int a = 0; a < S; a++)
        for (int b = 0; b < S; b++) {
          Vector sum{};
          for (int i = 0; i < kWindow; i++) sum += m[i * S + a] * rows[i * S + b];
          Store(tile + (a * S + b) * kLanes, sum);
        }
      for (int64_t i = 0; i < std::min(kLanes, count - group); i++) scatter(first + group + i, tile + i);
    }
  }
}

// Calls f(place in a tile, place in the plane) for what of a tile lies within a plane. Tiles of 6×6
// overlap, and begin a pixel up and to the left of where those of 4×4 do.
template <int S, typename F>
inline void AlongTile(int64_t tile, int64_t height, int64_t width, F f) {
  const int64_t across = (width + kTile - 1) / kTile, margin = (S - kTile) / 2;
  const int64_t top = tile / across * kTile - margin, left = tile % across * kTile - margin;
  const int64_t begin = std::max<int64_t>(0, -left), end = std::min<int64_t>(S, width - left);
  for (int64_t a = std::max<int64_t>(0, -top); a < std::min<int64_t>(S, height - top); a++)
    for (int64_t b = begin; b < end; b++) f(a * S + b, (top + a) * width + left + b);
}

int64_t Tiles(const int64_t *shape) {
  return ((shape[2] + kTile - 1) / kTile) * ((shape[3] + kTile - 1) / kTile);
}

// Maps N×C×H×W to the Winograd domain, 36×C×(N·tiles).
template <int S>
void MapsToWinograd(const int64_t *shape, const float *matrix, const float *maps, float *domain) {
  const int64_t count = shape[0], channels = shape[1], height = shape[2], width = shape[3];
  const int64_t tiles = Tiles(shape), stride = channels * count * tiles;
  Parallel(count * channels, [=](int64_t i) {
    const float *plane = maps + i * height * width;
    IntoWinograd<S>(tiles, matrix, domain + (i % channels * count + i / channels) * tiles, stride,
                  [=](int64_t tile, float *to) {
                    AlongTile<S>(tile, height, width,
                                 [=](int64_t place, int64_t at) { to[place * kLanes] = plane[at]; });
                  });
  });
}

// And back, where tiles that overlap are added.
template <int S>
void WinogradToMaps(const int64_t *shape, int64_t channels, const float *matrix, const float *domain, float *maps) {
  const int64_t count = shape[0], height = shape[2], width = shape[3];
  const int64_t tiles = Tiles(shape), stride = channels * count * tiles;
  Parallel(count * channels, [=](int64_t i) {
    float *plane = maps + i * height * width;
    std::fill_n(plane, height * width, 0.f);
    OutOfWinograd<S>(tiles, matrix, domain + (i % channels * count + i / channels) * tiles, stride,
                   [=](int64_t tile, const float *from) {
                     AlongTile<S>(tile, height, width,
                                  [=](int64_t place, int64_t at) { plane[at] += from[place * kLanes]; });
                   });
  });
}

// Kernels O×C×3×3 to the Winograd domain, 36×(O·C), or the transpose of that.
void KernelTransform(int64_t kernels, bool reverse, const float *matrix, const float *from, float *to) {
  constexpr int64_t kSize = 3, kArea = kSize * kSize, kTogether = 1024;
  Parallel((kernels + kTogether - 1) / kTogether, [=](int64_t part) {
    const int64_t first = part * kTogether, count = std::min(kTogether, kernels - first);
    if (reverse)
      OutOfWinograd<kSize>(count, matrix, from + first, kernels, [=](int64_t kernel, const float *values) {
        for (int64_t i = 0; i < kArea; i++) to[(first + kernel) * kArea + i] = values[i * kLanes];
      });
    else
      IntoWinograd<kSize>(count, matrix, to + first, kernels, [=](int64_t kernel, float *values) {
        for (int64_t i = 0; i < kArea; i++) values[i * kLanes] = from[(first + kernel) * kArea + i];
      });
  });
}

// Whether N, H and W of maps are known when shapes are inferred.
bool IsKnown(const int64_t *shape) { return shape[0] >= 0 && shape[2] >= 0 && shape[3] >= 0; }

int64_t Neighbours(const int64_t *shape) {
  return IsKnown(shape) ? shape[0] * (shape[2] + 1) * (shape[3] + 1) : -1;
}

}  // namespace

#define OPERATOR(NAME) int NAME(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *)
#define INFER_SHAPE(NAME) Shape NAME##InferShape(int *ranks, int64_t **shapes, void *)
#define INFER_SHAPES(NAME) std::vector<Shape> NAME##InferShape(int *ranks, int64_t **shapes, void *)
#define TENSOR(I) static_cast<float *>(data[I])
#define SHAPE(I) Shape(shapes[I], shapes[I] + ranks[I])

extern "C" {

void set_num_threads(int count) { num_threads = std::max(count, 1); }

// x weight → y; x weight dy → dx dweight
#define DEPTHWISE(NAME, S, SAME)                                                                              \
  OPERATOR(NAME) {                                                                                            \
    switch (shapes[1][2]) {                                                                                   \
      case 3: DepthwiseForward<3, S>(shapes[0], SAME, TENSOR(0), TENSOR(1), TENSOR(2)); return 0;             \
      case 5: DepthwiseForward<5, S>(shapes[0], SAME, TENSOR(0), TENSOR(1), TENSOR(2)); return 0;             \
      case 7: DepthwiseForward<7, S>(shapes[0], SAME, TENSOR(0), TENSOR(1), TENSOR(2)); return 0;             \
      default: return 1;                                                                                      \
    }                                                                                                         \
  }                                                                                                           \
  INFER_SHAPE(NAME) {                                                                                         \
    auto size = [](int64_t in) { return in < 0 ? in : (in + S - 1) / S; };                                    \
    return {shapes[0][0], shapes[0][1], size(shapes[0][2]), size(shapes[0][3])};                              \
  }                                                                                                           \
  OPERATOR(NAME##_gradient) {                                                                                 \
    float *x = TENSOR(0), *weight = TENSOR(1), *dy = TENSOR(2), *dx = TENSOR(3), *dweight = TENSOR(4);        \
    switch (shapes[1][2]) {                                                                                   \
      case 3: DepthwiseBackward<3, S>(shapes[0], SAME, x, weight, dy, dx, dweight); return 0;                 \
      case 5: DepthwiseBackward<5, S>(shapes[0], SAME, x, weight, dy, dx, dweight); return 0;                 \
      case 7: DepthwiseBackward<7, S>(shapes[0], SAME, x, weight, dy, dx, dweight); return 0;                 \
      default: return 1;                                                                                      \
    }                                                                                                         \
  }                                                                                                           \
  INFER_SHAPES(NAME##_gradient) { return {SHAPE(0), SHAPE(1)}; }

DEPTHWISE(depthwise_stride1, 1, false)
DEPTHWISE(depthwise_stride2, 2, false)
DEPTHWISE(depthwise_stride2_same, 2, true)

// x weight → y; x weight dy → dx dweight
OPERATOR(pointwise) {
  const int64_t *x = shapes[0];
  Pointwise(x[0], shapes[1][0], x[1], x[2] * x[3], TENSOR(1), false, TENSOR(0), TENSOR(2));
  return 0;
}
INFER_SHAPE(pointwise) { return {shapes[0][0], shapes[1][0], shapes[0][2], shapes[0][3]}; }
OPERATOR(pointwise_gradient) {
  const int64_t *x = shapes[0], size = x[2] * x[3], out_channels = shapes[1][0];
  Pointwise(x[0], x[1], out_channels, size, TENSOR(1), true, TENSOR(2), TENSOR(3));
  PointwiseWeightGradient(x[0], out_channels, x[1], size, TENSOR(2), TENSOR(0), TENSOR(4));
  return 0;
}
INFER_SHAPES(pointwise_gradient) { return {SHAPE(0), SHAPE(1)}; }

// x gamma beta running_mean running_variance (epsilon momentum) → y mean variance new_mean new_variance;
// by the running statistics: x gamma beta mean variance (epsilon …) → y;
// gradients of both: x gamma beta mean variance (epsilon …) dy → dx dgamma dbeta
#define BATCH_NORM(NAME, ACT)                                                                                 \
  OPERATOR(NAME) {                                                                                            \
    BatchNorm<ACT>(shapes[0], TENSOR(0), TENSOR(1), TENSOR(2), TENSOR(3), TENSOR(4), TENSOR(5)[0],            \
                   TENSOR(5)[1], TENSOR(6), TENSOR(7), TENSOR(8), TENSOR(9), TENSOR(10));                     \
    return 0;                                                                                                 \
  }                                                                                                           \
  INFER_SHAPES(NAME) { return {SHAPE(0), SHAPE(1), SHAPE(1), SHAPE(1), SHAPE(1)}; }                           \
  OPERATOR(NAME##_inference) {                                                                                \
    BatchNormInference<ACT>(shapes[0], TENSOR(0), TENSOR(1), TENSOR(2), TENSOR(3), TENSOR(4), *TENSOR(5),     \
                            TENSOR(6));                                                                       \
    return 0;                                                                                                 \
  }                                                                                                           \
  INFER_SHAPE(NAME##_inference) { return SHAPE(0); }                                                          \
  BATCH_NORM_GRADIENT(NAME##_gradient, ACT, false)                                                            \
  BATCH_NORM_GRADIENT(NAME##_inference_gradient, ACT, true)

#define BATCH_NORM_GRADIENT(NAME, ACT, FIXED)                                                                 \
  OPERATOR(NAME) {                                                                                            \
    BatchNormGradient<ACT>(shapes[0], FIXED, TENSOR(0), TENSOR(1), TENSOR(2), TENSOR(3), TENSOR(4),           \
                           *TENSOR(5), TENSOR(6), TENSOR(7), TENSOR(8), TENSOR(9));                           \
    return 0;                                                                                                 \
  }                                                                                                           \
  INFER_SHAPES(NAME) { return {SHAPE(0), SHAPE(1), SHAPE(1)}; }

BATCH_NORM(batch_norm, Identity)
BATCH_NORM(batch_norm_relu, Relu)
BATCH_NORM(batch_norm_swish, Swish)
BATCH_NORM(batch_norm_hard_swish, HardSwish)

// Over the last axis: x gamma beta epsilon → y; x gamma epsilon dy → dx dgamma dbeta
OPERATOR(layer_norm) {
  LayerNorm(Product(shapes[0], 0, ranks[0] - 1), shapes[1][0], TENSOR(0), TENSOR(1), TENSOR(2), *TENSOR(3), TENSOR(4));
  return 0;
}
INFER_SHAPE(layer_norm) { return SHAPE(0); }
OPERATOR(layer_norm_gradient) {
  LayerNormGradient(Product(shapes[0], 0, ranks[0] - 1), shapes[1][0], TENSOR(0), TENSOR(1), *TENSOR(2), TENSOR(3),
                    TENSOR(4), TENSOR(5), TENSOR(6));
  return 0;
}
INFER_SHAPES(layer_norm_gradient) { return {SHAPE(0), SHAPE(1), SHAPE(1)}; }

// N×C×H×W → N×H×W×C: x → y; x dy → dx
OPERATOR(maps_to_rows) {
  Transpose(shapes[0][0], shapes[0][1], shapes[0][2] * shapes[0][3], TENSOR(0), TENSOR(1));
  return 0;
}
INFER_SHAPE(maps_to_rows) { return {shapes[0][0], shapes[0][2], shapes[0][3], shapes[0][1]}; }
OPERATOR(maps_to_rows_gradient) {
  Transpose(shapes[0][0], shapes[0][2] * shapes[0][3], shapes[0][1], TENSOR(1), TENSOR(2));
  return 0;
}
INFER_SHAPE(maps_to_rows_gradient) { return SHAPE(0); }

// N×H×W×C → N×C×H×W, each channel times a factor: x factor → y; x factor dy → dx dfactor
OPERATOR(rows_to_maps) {
  const int64_t channels = shapes[0][3], size = shapes[0][1] * shapes[0][2];
  const float *factor = TENSOR(1);
  float *y = TENSOR(2);
  Transpose(shapes[0][0], size, channels, TENSOR(0), y);
  ParallelGroups(shapes[0][0] * channels, size, [=](int64_t i) {
    for (int64_t k = 0; k < size; k++) y[i * size + k] *= factor[i % channels];
  });
  return 0;
}
INFER_SHAPE(rows_to_maps) { return {shapes[0][0], shapes[0][3], shapes[0][1], shapes[0][2]}; }
OPERATOR(rows_to_maps_gradient) {
  const int64_t channels = shapes[0][3], size = shapes[0][1] * shapes[0][2];
  const float *x = TENSOR(0), *factor = TENSOR(1);
  float *dx = TENSOR(3);
  Transpose(shapes[0][0], channels, size, TENSOR(2), dx);
  SumOverRows(shapes[0][0] * size, channels, TENSOR(4), [=](int64_t r, float *sums) {
    Along(x + r * channels, dx + r * channels, channels, [=](int64_t at, Vector v, Vector d, int64_t count) {
      Store(sums + at, Load(sums + at, count) + v * d, count);
      Store(dx + r * channels + at, d * Load(factor + at, count), count);
    });
  });
  return 0;
}
INFER_SHAPES(rows_to_maps_gradient) { return {SHAPE(0), SHAPE(1)}; }

// Sums over all axes but the last: dy → dbias
OPERATOR(bias_gradient) {
  const int64_t size = shapes[0][ranks[0] - 1];
  const float *dy = TENSOR(0);
  SumOverRows(Product(shapes[0], 0, ranks[0] - 1), size, TENSOR(1), [=](int64_t r, float *sums) {
    Along(sums, dy + r * size, size, [=](int64_t at, Vector sum, Vector d, int64_t count) {
      Store(sums + at, sum + d, count);
    });
  });
  return 0;
}
INFER_SHAPE(bias_gradient) { return {shapes[0][ranks[0] - 1]}; }

// x → y; x dy → dx
#define ACTIVATION(NAME, KIND)                                                                               \
  OPERATOR(NAME) {                                                                                            \
    Elementwise(Product(shapes[0], 0, ranks[0]), TENSOR(0), TENSOR(0), TENSOR(1),                             \
                [](Vector x, Vector) { return KIND::Value(x); });                                             \
    return 0;                                                                                                 \
  }                                                                                                           \
  INFER_SHAPE(NAME) { return SHAPE(0); }                                                                      \
  OPERATOR(NAME##_gradient) {                                                                                 \
    Elementwise(Product(shapes[0], 0, ranks[0]), TENSOR(0), TENSOR(1), TENSOR(2),                             \
                [](Vector x, Vector dy) { return dy * KIND::Slope(x); });                                     \
    return 0;                                                                                                 \
  }                                                                                                           \
  INFER_SHAPE(NAME##_gradient) { return SHAPE(0); }

ACTIVATION(swish, Swish)
ACTIVATION(gelu, Gelu)

// Mean of each plane, N×C×1×1: x → y; x dy → dx
OPERATOR(plane_mean) {
  const int64_t size = shapes[0][2] * shapes[0][3];
  const float *x = TENSOR(0);
  float *y = TENSOR(1);
  ParallelGroups(Product(shapes[0], 0, 2), size, [=](int64_t i) { y[i] = RowSum(x + i * size, size) / size; });
  return 0;
}
INFER_SHAPE(plane_mean) { return {shapes[0][0], shapes[0][1], 1, 1}; }
OPERATOR(plane_mean_gradient) {
  const int64_t size = shapes[0][2] * shapes[0][3];
  const float *dy = TENSOR(1);
  float *dx = TENSOR(2);
  ParallelGroups(Product(shapes[0], 0, 2), size, [=](int64_t i) { std::fill_n(dx + i * size, size, dy[i] / size); });
  return 0;
}
INFER_SHAPE(plane_mean_gradient) { return SHAPE(0); }

// Each plane times a factor of its own, N×C×1×1: x factor → y; x factor dy → dx dfactor
OPERATOR(plane_scale) {
  const int64_t size = shapes[0][2] * shapes[0][3];
  const float *x = TENSOR(0), *factor = TENSOR(1);
  float *y = TENSOR(2);
  ParallelGroups(Product(shapes[0], 0, 2), size, [=](int64_t i) {
    Along(x + i * size, x + i * size, size, [=](int64_t at, Vector v, Vector, int64_t count) {
      Store(y + i * size + at, v * factor[i], count);
    });
  });
  return 0;
}
INFER_SHAPE(plane_scale) { return SHAPE(0); }
OPERATOR(plane_scale_gradient) {
  const int64_t size = shapes[0][2] * shapes[0][3];
  const float *x = TENSOR(0), *factor = TENSOR(1), *dy = TENSOR(2);
  float *dx = TENSOR(3), *dfactor = TENSOR(4);
  ParallelGroups(Product(shapes[0], 0, 2), size, [=](int64_t i) {
    Vector sum{};
    Along(x + i * size, dy + i * size, size, [&](int64_t at, Vector v, Vector d, int64_t count) {
      sum += v * d;
      Store(dx + i * size + at, d * factor[i], count);
    });
    dfactor[i] = Sum(sum);
  });
  return 0;
}
INFER_SHAPES(plane_scale_gradient) { return {SHAPE(0), SHAPE(1)}; }

// Parts of a transposed convolution, where `matrix` has a column for each of the neighbourhoods.
// x → matrix; matrix x → dx
OPERATOR(neighbourhoods) {
  Neighbourhoods(shapes[0], TENSOR(0), TENSOR(1));
  return 0;
}
INFER_SHAPE(neighbourhoods) { return {4 * shapes[0][1], Neighbours(shapes[0])}; }
OPERATOR(neighbourhoods_gradient) {
  NeighbourhoodsGradient(shapes[1], TENSOR(0), TENSOR(2));
  return 0;
}
INFER_SHAPE(neighbourhoods_gradient) { return SHAPE(1); }

// matrix x weight → maps; dmaps x weight → matrix
OPERATOR(phases_to_maps) {
  const int64_t *x = shapes[1], *weight = shapes[2];
  PhasesToMaps(x[0], weight[1], x[2], x[3], weight[2] / 2, TENSOR(0), TENSOR(3));
  return 0;
}
INFER_SHAPE(phases_to_maps) {
  const int64_t factor = shapes[2][2] / 2;
  auto size = [=](int64_t in) { return in < 0 ? in : in * factor; };
  return {shapes[1][0], shapes[2][1], size(shapes[1][2]), size(shapes[1][3])};
}
OPERATOR(maps_to_phases) {
  const int64_t *x = shapes[1], *weight = shapes[2];
  MapsToPhases(x[0], weight[1], x[2], x[3], weight[2] / 2, TENSOR(0), TENSOR(3));
  return 0;
}
INFER_SHAPE(maps_to_phases) { return {shapes[2][1] * shapes[2][2] * shapes[2][3] / 4, Neighbours(shapes[1])}; }

// weight → matrix; matrix weight → dweight
OPERATOR(weight_matrix) {
  WeightMatrix(shapes[0], false, TENSOR(0), TENSOR(1));
  return 0;
}
INFER_SHAPE(weight_matrix) { return {shapes[0][1] * shapes[0][2] * shapes[0][3] / 4, 4 * shapes[0][0]}; }
OPERATOR(weight_matrix_gradient) {
  WeightMatrix(shapes[1], true, TENSOR(0), TENSOR(2));
  return 0;
}
INFER_SHAPE(weight_matrix_gradient) { return SHAPE(1); }

// maps matrix → domain; domain matrix maps → maps, of which the last give the size
OPERATOR(maps_to_winograd) {
  const bool windows = shapes[1][1] == kWindow;
  (windows ? MapsToWinograd<kWindow> : MapsToWinograd<kTile>)(shapes[0], TENSOR(1), TENSOR(0), TENSOR(2));
  return 0;
}
INFER_SHAPE(maps_to_winograd) {
  const int64_t *maps = shapes[0];
  return {kDomain, maps[1], IsKnown(maps) ? maps[0] * Tiles(maps) : -1};
}
OPERATOR(winograd_to_maps) {
  const bool windows = shapes[1][1] == kWindow;
  auto transform = windows ? WinogradToMaps<kWindow> : WinogradToMaps<kTile>;
  transform(shapes[2], shapes[0][1], TENSOR(1), TENSOR(0), TENSOR(3));
  return 0;
}
INFER_SHAPE(winograd_to_maps) { return {shapes[2][0], shapes[0][1], shapes[2][2], shapes[2][3]}; }

// weight matrix → domain; domain matrix weight → dweight
OPERATOR(kernels_to_winograd) {
  KernelTransform(shapes[0][0] * shapes[0][1], false, TENSOR(1), TENSOR(0), TENSOR(2));
  return 0;
}
INFER_SHAPE(kernels_to_winograd) { return {kDomain, shapes[0][0], shapes[0][1]}; }
OPERATOR(kernels_to_winograd_gradient) {
  KernelTransform(shapes[2][0] * shapes[2][1], true, TENSOR(1), TENSOR(0), TENSOR(3));
  return 0;
}
INFER_SHAPE(kernels_to_winograd_gradient) { return SHAPE(2); }

}  // extern "C"
