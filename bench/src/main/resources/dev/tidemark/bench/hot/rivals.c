// What Tidemark's hot paths are measured against, compiled on the spot: cc -O3 -march=native.
// Bitmaps are 64-bit words, whole 64-byte lines, 64-byte aligned; functions named *_bits take bits.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__AVX512VPOPCNTDQ__)
#define WIDTH 64
typedef __m512i vec;
static inline vec load(const void *p) { return _mm512_loadu_si512(p); }
static inline void store(void *p, vec v) { _mm512_storeu_si512(p, v); }
static inline vec zero(void) { return _mm512_setzero_si512(); }
static inline vec or(vec a, vec b) { return _mm512_or_si512(a, b); }
static inline vec and_not(vec a, vec b) { return _mm512_andnot_si512(b, a); }
static inline vec add(vec a, vec b) { return _mm512_add_epi64(a, b); }
static inline vec shr(vec a, int n) { return _mm512_srl_epi64(a, _mm_cvtsi32_si128(n)); }
static inline vec shl(vec a, int n) { return _mm512_sll_epi64(a, _mm_cvtsi32_si128(n)); }
static inline vec count(vec a) { return _mm512_popcnt_epi64(a); }
static inline int full(const void *p) { return !_mm512_cmpneq_epi64_mask(load(p), _mm512_set1_epi64(-1)); }
static inline int any(vec a) { return _mm512_test_epi64_mask(a, a) != 0; }
static inline uint64_t sum(vec a) { return _mm512_reduce_add_epi64(a); }
static inline vec xor(vec a, vec b) { return _mm512_xor_si512(a, b); }
static inline unsigned words_set(vec a) { return _mm512_test_epi64_mask(a, a); }
#elif defined(__AVX2__)
#define WIDTH 32
typedef __m256i vec;
static inline vec load(const void *p) { return _mm256_loadu_si256(p); }
static inline void store(void *p, vec v) { _mm256_storeu_si256(p, v); }
static inline vec zero(void) { return _mm256_setzero_si256(); }
static inline vec or(vec a, vec b) { return _mm256_or_si256(a, b); }
static inline vec and_not(vec a, vec b) { return _mm256_andnot_si256(b, a); }
static inline vec add(vec a, vec b) { return _mm256_add_epi64(a, b); }
static inline vec shr(vec a, int n) { return _mm256_srl_epi64(a, _mm_cvtsi32_si128(n)); }
static inline vec shl(vec a, int n) { return _mm256_sll_epi64(a, _mm_cvtsi32_si128(n)); }
static inline vec count(vec a) {
  const vec nibbles = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, //
                                       0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const vec low = _mm256_set1_epi8(15);
  vec bytes = _mm256_add_epi8(_mm256_shuffle_epi8(nibbles, _mm256_and_si256(a, low)),
                              _mm256_shuffle_epi8(nibbles, _mm256_and_si256(shr(a, 4), low)));
  return _mm256_sad_epu8(bytes, _mm256_setzero_si256());
}
static inline int any(vec a) { return !_mm256_testz_si256(a, a); }
static inline uint64_t sum(vec a) {
  return _mm256_extract_epi64(a, 0) + _mm256_extract_epi64(a, 1) + _mm256_extract_epi64(a, 2) +
         _mm256_extract_epi64(a, 3);
}
static inline vec xor(vec a, vec b) { return _mm256_xor_si256(a, b); }
static inline unsigned words_set(vec a) {
  return ~_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(a, zero()))) & 15;
}
#else
#error "neither AVX2 nor AVX-512"
#endif

long width(void) { return WIDTH * 8; }

// The machine's limit.

uint64_t limit_read(const char *src, long bytes) {
  vec a = zero(), b = zero(), c = zero(), d = zero();
  for (long i = 0; i < bytes; i += 4 * WIDTH) {
    a = or(a, load(src + i));
    b = or(b, load(src + i + WIDTH));
    c = or(c, load(src + i + 2 * WIDTH));
    d = or(d, load(src + i + 3 * WIDTH));
  }
  return any(or(or(a, b), or(c, d)));
}

void limit_copy(char *dst, const char *src, long bytes) { memcpy(dst, src, bytes); }

void limit_fill(char *dst, long bytes) { memset(dst, 0, bytes); }

// Merge. The plain loops are left to the compiler.

uint64_t plain_or_count(uint64_t *restrict dst, const uint64_t *restrict src, long bytes) {
  uint64_t n = 0;
  for (long i = 0; i < bytes / 8; i++) {
    n += __builtin_popcountll(src[i] & ~dst[i]);
    dst[i] |= src[i];
  }
  return n;
}

uint64_t plain_or_count_clear(uint64_t *restrict dst, uint64_t *restrict src, long bytes) {
  uint64_t n = 0;
  for (long i = 0; i < bytes / 8; i++) {
    n += __builtin_popcountll(src[i] & ~dst[i]);
    dst[i] |= src[i];
    src[i] = 0;
  }
  return n;
}

// As Tidemark does it: at the beginning and after a clean stretch, look for the next bit without the
// destination. A stretch is as long as all since then that had bits.
static inline long stretch(long dirty) {
  return dirty < 32 << 10 ? 32 << 10 : dirty > 256 << 10 ? 256 << 10 : dirty;
}

static inline long skip_clean(const char *src, long i, long bytes) {
  while (i <= bytes - 4 * WIDTH && !any(or(or(load(src + i), load(src + i + WIDTH)),
                                           or(load(src + i + 2 * WIDTH), load(src + i + 3 * WIDTH))))) {
    i += 4 * WIDTH;
  }
  return i;
}

// A shifted source's vectors reach into the next one.
static inline long skip_clean_shifted(const char *src, long i, long bytes) {
  long next = skip_clean(src, i, bytes) - 2 * WIDTH;
  return next > i ? next : i;
}

uint64_t same_or_count(char *restrict dst, const char *restrict src, long bytes) {
  vec n = zero();
  for (long i = skip_clean(src, 0, bytes), from = i; i < bytes;) {
    vec all = zero();
    long some = stretch(i - from), stop = some < bytes - i ? i + some : bytes;
    for (; i < stop; i += 2 * WIDTH) {
      vec in = load(src + i), old = load(dst + i);
      store(dst + i, or(old, in));
      vec in2 = load(src + i + WIDTH), old2 = load(dst + i + WIDTH);
      store(dst + i + WIDTH, or(old2, in2));
      n = add(n, add(count(and_not(in, old)), count(and_not(in2, old2))));
      all = or(all, or(in, in2));
    }
    if (!any(all)) {
      from = i = skip_clean(src, i, bytes);
    }
  }
  return sum(n);
}

uint64_t same_or_count_clear(char *restrict dst, char *restrict src, long bytes) {
  vec n = zero();
  for (long i = skip_clean(src, 0, bytes), from = i; i < bytes;) {
    vec all = zero();
    long some = stretch(i - from), stop = some < bytes - i ? i + some : bytes;
    for (; i < stop; i += 2 * WIDTH) {
      vec in = load(src + i), in2 = load(src + i + WIDTH);
      vec old = load(dst + i), old2 = load(dst + i + WIDTH);
      store(dst + i, or(old, in));
      store(dst + i + WIDTH, or(old2, in2));
      store(src + i, zero());
      store(src + i + WIDTH, zero());
      n = add(n, add(count(and_not(in, old)), count(and_not(in2, old2))));
      all = or(all, or(in, in2));
    }
    if (!any(all)) {
      from = i = skip_clean(src, i, bytes);
    }
  }
  return sum(n);
}

uint64_t same_or_count_shifted(char *restrict dst, const char *restrict src, long bytes, int shift) {
  vec n = zero();
  for (long i = skip_clean_shifted(src, 0, bytes), from = i; i < bytes;) {
    vec all = zero();
    long some = stretch(i - from), stop = some < bytes - i ? i + some : bytes;
    for (; i < stop; i += WIDTH) {
      vec in = or(shr(load(src + i), shift), shl(load(src + i + 8), 64 - shift));
      vec old = load(dst + i);
      store(dst + i, or(old, in));
      n = add(n, count(and_not(in, old)));
      all = or(all, in);
    }
    if (!any(all)) {
      from = i = skip_clean_shifted(src, i, bytes);
    }
  }
  return sum(n);
}

// Cardinality.

uint64_t same_cardinality(const char *map, long bytes) {
  vec n = zero();
  for (long i = 0; i < bytes; i += 2 * WIDTH) {
    n = add(n, add(count(load(map + i)), count(load(map + i + WIDTH))));
  }
  return sum(n);
}

// Harvest: scan once, note the lines with bits, list the runs there, clear those lines.

static uint64_t summarize(const char *map, long words, uint64_t *lines) {
  vec n = zero();
#if WIDTH == 64
  // The counts of eight lines are the bytes of one vector: what is not 0 there names the line. Words
  // are whole blocks.
  const vec tops = _mm512_set1_epi8(0x80), low16 = _mm512_set1_epi64(0x0000FFFF0000FFFF),
            low32 = _mm512_set1_epi64(0xFFFFFFFF),
            bit_of_lane = _mm512_mullo_epi64(_mm512_set1_epi64(0x0101010101010101),
                                             _mm512_set_epi64(128, 64, 32, 16, 8, 4, 2, 1));
  for (long block = 0; block < words * 8; block += 4096) {
    vec named = zero(), sums = zero();
    for (int i = 0; i < 8; i++) {
      vec v[8];
      for (int k = 0; k < 8; k++) {
        v[k] = count(load(map + block + i * 512 + k * 64));
      }
      vec even = or(or(v[0], shl(v[2], 16)), or(shl(v[4], 32), shl(v[6], 48)));
      vec odd = or(or(v[1], shl(v[3], 16)), or(shl(v[5], 32), shl(v[7], 48)));
      sums = add(sums, add(even, odd));
      vec counts = or(even, shl(odd, 8));
      named = or(shr(named, 1), _mm512_and_si512(add(counts, _mm512_set1_epi8(0x7f)), tops));
    }
    n = add(n, add(_mm512_and_si512(sums, low16), _mm512_and_si512(shr(sums, 16), low16)));
    // Each lane gets all lanes' bits; then byte i of the word has bit i of each byte.
    named = or(named, _mm512_shuffle_i64x2(named, named, 0x4e));
    named = or(named, _mm512_permutex_epi64(named, 0x4e));
    named = or(named, _mm512_permutex_epi64(named, 0xb1));
    lines[block >> 12] = _mm512_test_epi8_mask(named, bit_of_lane);
  }
  n = add(_mm512_and_si512(n, low32), shr(n, 32));
#else
  for (long block = 0; block < words; block += 512) {
    uint64_t summary = 0;
    long stop = words - block < 512 ? words - block : 512;
    for (long line = 0; line < stop / 8; line++) {
      vec all = zero();
      for (int i = 0; i < 64; i += WIDTH) {
        vec v = load(map + (block + line * 8) * 8 + i);
        n = add(n, count(v));
        all = or(all, v);
      }
      summary |= (uint64_t)any(all) << line;
    }
    lines[block >> 9] = summary;
  }
#endif
  return sum(n);
}

static void clear_lines(char *map, long words, const uint64_t *lines) {
  for (long first = 0; first < words / 8; first += 64) {
    uint64_t left = lines[first >> 6];
    if (!left) {
      continue;
    }
    if (!~left) {
      memset(map + first * 64, 0, 4096);
      continue;
    }
    int some = __builtin_popcountll(left);
    for (int n = 0; n < some; n++, left &= left - 1) {
      char *line = map + (first + __builtin_ctzll(left)) * 64;
      for (int i = 0; i < 64; i += WIDTH) {
        store(line + i, zero());
      }
    }
  }
}

#define ENOUGH 2048
#define LINES 128         // Looked at before what is in them is listed.
#define LISTING 128       // Words whose edges are listed at a time.
#define WORDS (9 * LINES) // With edges in those: in each line, and one behind it.
#define NAMING 56         // Words of a summary listed at a time, and 7 more.
#define FAR (1 << 20)     // Larger bitmaps are out of cache.
#define MANY 8

struct cursor {
  const uint64_t *map, *lines;
  long end, line, unnamed; // In lines: behind the last, the next, the first that nobody named yet.
  long behind;             // Behind those looked at.
  uint64_t base, opened;
  int open; // A run goes on where the list was cut.
  int at, found;
  int next, count; // Of the named lines.
  int word, words; // Of those with edges.
  int named[64 * (NAMING + 7) + 64]; // Lines to look at.
  uint64_t edges[WORDS + 8], places[WORDS + 8];
  int ends[ENOUGH + 64 * LISTING + 64];
};

#define EDGE(k)                                                                                    \
  ends[n + k] = place + __builtin_ctzll(edges);                                                    \
  edges &= edges - 1;
#define FOUR(k) EDGE(k) EDGE(k + 1) EDGE(k + 2) EDGE(k + 3)

static inline void list_bits(uint64_t edges, int count, int place, int *ends, int n) {
  // More than there are, often: the next word writes over what is too much.
  FOUR(0)
  for (n += 4, count -= 4; count > 0; n += 8, count -= 8) {
    FOUR(0) FOUR(4)
  }
}

#ifdef __AVX512VBMI2__
// All places of a word at once: compressed bytes, made ints 16 at a time.
static inline void compress_bits(uint64_t edges, int count, int place, int *ends) {
  static const uint8_t up[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
  __m512i in = _mm512_maskz_compress_epi8(edges, load(up)), first = _mm512_set1_epi32(place);
  store(ends, _mm512_add_epi32(first, _mm512_cvtepu8_epi32(_mm512_castsi512_si128(in))));
  if (count > 16) {
    store(ends + 16, _mm512_add_epi32(first, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(in, 1))));
    store(ends + 32, _mm512_add_epi32(first, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(in, 2))));
    store(ends + 48, _mm512_add_epi32(first, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(in, 3))));
  }
}
#endif

static int list_words(const uint64_t *restrict edges, const uint64_t *restrict places, int words,
                      uint64_t base, int *restrict ends, int n) {
  for (int w = 0; w < words; w++) {
    int count = __builtin_popcountll(edges[w]);
#ifdef __AVX512VBMI2__
    compress_bits(edges[w], count, places[w] - base, ends + n);
#else
    list_bits(edges[w], count, places[w] - base, ends, n);
#endif
    n += count;
  }
  return n;
}

// Collects words of the summary that name lines.
static int collect_lines(struct cursor *c) {
  uint64_t *restrict edges = c->edges, *restrict places = c->places;
  long line = c->unnamed;
  int words = 0;
  while (line < c->end && words < NAMING) {
#if WIDTH == 64
    if (!(line & 511) && c->end - line >= 512) {
      const vec up = _mm512_setr_epi64(0, 64, 128, 192, 256, 320, 384, 448);
      vec eight = load(c->lines + (line >> 6));
      __mmask8 set = words_set(eight);
      if (set) {
        store(edges + words, _mm512_maskz_compress_epi64(set, eight));
        store(places + words, _mm512_maskz_compress_epi64(set, add(_mm512_set1_epi64(line), up)));
        words += __builtin_popcount(set);
      }
      line += 512;
      continue;
    }
#endif
    uint64_t left = c->lines[line >> 6] >> (line & 63);
    if (c->end - line < 64) {
      left &= (1ULL << (c->end - line)) - 1;
    }
    edges[words] = left;
    places[words] = line;
    words += left != 0;
    line = (line | 63) + 1;
  }
  c->unnamed = line < c->end ? line : c->end;
  return words;
}

// Reads ahead what will be looked at: a line that is missed later holds up all that follow.
static void __attribute__((noinline)) read_ahead(struct cursor *c, int words) {
  vec all = zero();
  for (int w = 0; w < words; w++) {
    uint64_t left = c->edges[w];
    long first = c->places[w];
    if (__builtin_popcountll(left) > MANY) {
      for (long at = 0; at < 64 && first + at < c->end; at++) {
        all = or(all, load(c->map + (first + at) * 8));
      }
    } else {
      for (; left; left &= left - 1) {
        all = or(all, load(c->map + (first + __builtin_ctzll(left)) * 8));
      }
    }
  }
  __asm__ volatile("" : : "r"(any(all)));
}

// Collects words where runs start and stop: the set bits of a word differenced with itself.
static int collect_words(struct cursor *c, uint64_t low) {
  int i = c->next, end = c->count < i + LINES ? c->count : i + LINES, words = 0;
  long next = c->behind;
  uint64_t *restrict edges = c->edges, *restrict places = c->places;
  const uint64_t *restrict map = c->map;
  const int *restrict named = c->named;
  while (i < end) {
    long line = named[i++];
    if ((next - line) & -low) {
      // The run ended with the line before, as the one behind it is not named.
      edges[words] = 1;
      places[words++] = (uint64_t)next << 9;
      low = 0;
    }
    const char *p = (const char *)(map + line * 8);
    uint64_t place = (uint64_t)line << 9;
    next = line + 1;
#if WIDTH == 64
    const vec up = _mm512_setr_epi64(0, 64, 128, 192, 256, 320, 384, 448);
    vec v = load(p);
    unsigned tops = _mm512_movepi64_mask(v);
    vec e = xor(v, shl(v, 1));
    e = _mm512_mask_xor_epi64(e, tops << 1 | low, e, _mm512_set1_epi64(1));
    low = tops >> 7;
    __mmask8 set = words_set(e);
    if (!set) { // Inside of a long run, which may go on for many whole lines.
      while (i + 4 <= c->count && named[i + 3] == next + 3 && full(p + 64) && full(p + 128) &&
             full(p + 192) && full(p + 256)) {
        i += 4;
        next += 4;
        p += 256;
      }
      continue;
    }
    store(edges + words, _mm512_maskz_compress_epi64(set, e));
    store(places + words, _mm512_maskz_compress_epi64(set, add(_mm512_set1_epi64(place), up)));
    words += __builtin_popcount(set);
#else
    for (int w = 0; w < 8; w++) {
      uint64_t v = ((const uint64_t *)p)[w];
      edges[words] = v ^ (v << 1 | low);
      places[words] = place + w * 64;
      words += edges[words] != 0;
      low = v >> 63;
    }
#endif
  }
  c->behind = next;
  c->next = i;
  return words;
}

static inline void go_on(struct cursor *c, int word) {
  c->word = word;
  c->line = word < c->words ? (long)(c->places[word] >> 9) : c->behind;
}

// Lists where runs start and stop, in turn.
static int __attribute__((noinline)) find(struct cursor *c) {
  int *ends = c->ends;
  c->base = c->open ? c->opened : (uint64_t)c->line << 9;
  ends[0] = 0;
  int n = c->open, is_far = c->end << 6 > FAR;
  while (c->line < c->end && n < ENOUGH) {
    if (c->word < c->words) {
      int w = c->word, to = w + LISTING < c->words ? w + LISTING : c->words;
      n = list_words(c->edges + w, c->places + w, to - w, c->base, ends, n);
      go_on(c, to);
    } else if (c->next < c->count) {
      c->words = collect_words(c, n & 1);
      go_on(c, 0);
    } else if (c->unnamed < c->end) {
      int words = collect_lines(c);
      if (is_far) {
        read_ahead(c, words);
      }
      c->next = 0;
      c->count = list_words(c->edges, c->places, words, 0, c->named, 0);
    } else {
      if (n & 1) {
        ends[n++] = ((uint64_t)c->line << 9) - c->base;
      }
      c->line = c->end;
    }
  }
  c->open = n & 1;
  if (c->open && c->line == c->end) {
    ends[n++] = (c->end << 9) - c->base;
    c->open = 0;
  } else if (c->open) {
    c->opened = c->base + ends[--n];
  }
  c->at = 0;
  c->found = n;
  return n || (c->line < c->end && find(c));
}

static inline int next(struct cursor *c) {
  c->at += 2;
  return c->at < c->found || find(c);
}

static inline uint64_t start(const struct cursor *c) { return c->base + c->ends[c->at]; }

static inline uint64_t length(const struct cursor *c) { return c->ends[c->at + 1] - c->ends[c->at]; }

// What a consumer makes of runs.
struct taken {
  uint64_t starts, lengths;
};

// The barrier keeps the compiler from making vectors of many runs, which no consumer that sends
// pages could.
static inline void take(struct taken *all, uint64_t start, uint64_t length) {
  __asm__ volatile("" : "+r"(start), "+r"(length) : : "memory");
  all->starts += start;
  all->lengths += length;
}

static inline uint64_t sum_of(const struct taken *all) { return all->starts * 31 + all->lengths; }

uint64_t same_harvest(char *map, long words, uint64_t *lines) {
  struct cursor c;
  struct taken all = {0, 0};
  uint64_t count = summarize(map, words, lines);
  c.map = (uint64_t *)map;
  c.lines = lines;
  c.end = words >> 3;
  c.line = c.unnamed = c.behind = 0;
  c.next = c.count = c.word = c.words = 0;
  c.open = 0;
  c.at = c.found = 0;
  while (next(&c)) {
    take(&all, start(&c), length(&c));
  }
  clear_lines(map, words, lines);
  return count + sum_of(&all);
}

// The other way: find the next bit, test and clear it, page by page.

static long __attribute__((noinline)) find_next_bit(const uint64_t *map, long size, long from) {
  if (from >= size) {
    return size;
  }
  long word = from >> 6;
  uint64_t bits = map[word] & ~0ULL << (from & 63);
  while (!bits) {
    if (++word >= (size + 63) >> 6) {
      return size;
    }
    bits = map[word];
  }
  long found = (word << 6) + __builtin_ctzll(bits);
  return found < size ? found : size;
}

static int __attribute__((noinline)) test_and_clear_bit(uint64_t *map, long bit) {
  uint64_t mask = 1ULL << (bit & 63), old = map[bit >> 6];
  map[bit >> 6] = old & ~mask;
  return (old & mask) != 0;
}

uint64_t bit_by_bit_harvest(uint64_t *map, long words) {
  struct taken all = {0, 0};
  long size = words << 6;
  for (long page = 0; (page = find_next_bit(map, size, page)) < size;) {
    take(&all, page, test_and_clear_bit(map, page));
  }
  return sum_of(&all);
}

// The kernel's part of a sync, the same for everybody: an answer that overwrites, and one that ORs
// runs (start, length in pages) into what is there. The first with the instruction of copy_to_user
// (arch/x86/include/asm/uaccess_64.h); memcpy goes around the cache from some MiB on.

void kernel_overwrite(char *dst, const char *answer, long bytes) {
  __asm__ volatile("rep movsb" : "+D"(dst), "+S"(answer), "+c"(bytes) : : "memory");
}

void kernel_or(uint64_t *dst, const uint64_t *runs, long count) {
  for (long i = 0; i < count; i++) {
    uint64_t from = runs[2 * i], end = from + runs[2 * i + 1];
    while (from < end) {
      uint64_t bits = end - from < 64 - (from & 63) ? end - from : 64 - (from & 63);
      dst[from >> 6] |= (~0ULL >> (64 - bits)) << (from & 63);
      from += bits;
    }
  }
}

// QEMU's sync and search: physical_memory_set_dirty_lebitmap (include/exec/ram_addr.h) for each
// source, into the VGA's bitmap and the migration's; physical_memory_sync_dirty_bitmap into the
// block's, counting; then find_next_bit and test_and_clear_bit per page (migration/ram.c). The
// answer of KVM goes into a bitmap that is kept; that of VFIO into one that is zeroed each time
// (hw/vfio/container.c).

struct qemu {
  uint64_t *slot, *vga, *migration, *block, *clear;
};

static uint64_t *bitmap(long words) { return aligned_alloc(64, ((words << 3) + 63) & -64); }

struct qemu *qemu_new(long words) {
  struct qemu *q = malloc(sizeof *q);
  uint64_t **maps[] = {&q->slot, &q->vga, &q->migration, &q->block};
  for (int i = 0; i < 4; i++) {
    *maps[i] = bitmap(words);
    memset(*maps[i], 0, words << 3);
  }
  q->clear = calloc((words >> 12 >> 6) + 1, 8);
  return q;
}

void qemu_free(struct qemu *q) {
  free(q->slot);
  free(q->vga);
  free(q->migration);
  free(q->block);
  free(q->clear);
  free(q);
}

static void set_dirty_lebitmap(struct qemu *q, const uint64_t *source, long words) {
  for (long i = 0; i < words; i++) {
    if (source[i]) {
      __atomic_fetch_or(&q->migration[i], source[i], __ATOMIC_SEQ_CST);
      __atomic_fetch_or(&q->vga[i], source[i], __ATOMIC_SEQ_CST);
    }
  }
}

uint64_t qemu_sync(struct qemu *q, const char *answer, const uint64_t *runs, long count, long words) {
  kernel_overwrite((char *)q->slot, answer, words << 3);
  set_dirty_lebitmap(q, q->slot, words);
  uint64_t *temporary = calloc(words, 8);
  kernel_or(temporary, runs, count);
  set_dirty_lebitmap(q, temporary, words);
  free(temporary);
  uint64_t dirty = 0;
  for (long i = 0; i < words; i++) {
    if (q->migration[i]) {
      uint64_t bits = __atomic_exchange_n(&q->migration[i], 0, __ATOMIC_SEQ_CST);
      dirty += __builtin_popcountll(bits & ~q->block[i]);
      q->block[i] |= bits;
    }
  }
  memset(q->clear, 255, ((words >> 12 >> 6) + 1) << 3);
  long size = words << 6, cleared = 0;
  uint64_t sum = 0;
  for (long page = 0; (page = find_next_bit(q->block, size, page)) < size;) {
    // One bit of the clear bitmap stands for 2^18 pages.
    cleared += test_and_clear_bit(q->clear, page >> 18);
    dirty -= test_and_clear_bit(q->block, page);
    sum += page;
  }
  return dirty || cleared < 0 ? ~0ULL : sum;
}

// Marks: what the VMM wrote, every step-th page of a list from one on.
void atomic_ors(uint64_t *map, const int *pages, long from, long count, long step) {
  for (long i = from; i < count; i += step) {
    __atomic_fetch_or(&map[pages[i] >> 6], 1ULL << (pages[i] & 63), __ATOMIC_SEQ_CST);
  }
}

// Pieces of a bitmap, each of whole words, merged to any bits of another and cleared: by the word,
// as a program does that thinks of it, and bit by bit.

uint64_t scatter(uint64_t *dst, uint64_t *src, const uint64_t *places, long pieces, long bits) {
  uint64_t fresh = 0;
  for (long i = 0; i < pieces; i++) {
    uint64_t *to = dst + (places[i] >> 6), *from = src + (i * bits >> 6);
    int shift = places[i] & 63;
    for (long w = 0; w < bits >> 6; w++) {
      uint64_t in = from[w], low = in << shift, high = shift ? in >> (64 - shift) : 0;
      if (in) {
        fresh += __builtin_popcountll(low & ~to[w]) + __builtin_popcountll(high & ~to[w + 1]);
        to[w] |= low;
        to[w + 1] |= high;
        from[w] = 0;
      }
    }
  }
  return fresh;
}

uint64_t scatter_bits(uint64_t *dst, uint64_t *src, const uint64_t *places, long pieces, long bits) {
  uint64_t fresh = 0;
  for (long i = 0; i < pieces; i++) {
    long end = (i + 1) * bits;
    for (long page = i * bits; (page = find_next_bit(src, end, page)) < end; page++) {
      long to = places[i] + page - i * bits;
      test_and_clear_bit(src, page);
      fresh += !(dst[to >> 6] >> (to & 63) & 1);
      dst[to >> 6] |= 1ULL << (to & 63);
    }
  }
  return fresh;
}

// PAGEMAP_SCAN (linux/fs.h since 6.7, which the C library's headers may not know): takes what was
// written, sets a bit for each page, then finds, tests and clears them.

struct region {
  uint64_t start, end, categories;
};

struct scan {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t inverted, mask, anyof, returned;
};

uint64_t pagemap_round(char *memory, long bytes, uint64_t *map, long words) {
  static struct region regions[4096];
  static int fd = -1;
  if (fd < 0) {
    fd = open("/proc/self/pagemap", O_RDWR | O_CLOEXEC);
  }
  const uint64_t written = 2;
  struct scan scan = {.size = sizeof scan, .flags = 1 | 2, .vec = (uint64_t)regions};
  scan.start = (uint64_t)memory;
  scan.end = (uint64_t)memory + bytes;
  scan.vec_len = 4096;
  scan.mask = scan.returned = written;
  while (scan.start < scan.end) {
    long found = ioctl(fd, _IOWR('f', 16, struct scan), &scan);
    if (found < 0) {
      return ~0ULL;
    }
    for (long i = 0; i < found; i++) {
      for (uint64_t at = regions[i].start; at < regions[i].end; at += 4096) {
        uint64_t page = (at - (uint64_t)memory) >> 12;
        map[page >> 6] |= 1ULL << (page & 63);
      }
    }
    scan.start = scan.walk_end;
  }
  uint64_t pages = 0;
  long size = words << 6;
  for (long page = 0; (page = find_next_bit(map, size, page)) < size;) {
    pages += test_and_clear_bit(map, page);
  }
  return pages;
}

// A system call that does nothing.
int ioctl_calls(int fd, unsigned long request, long count) {
  int result = 0;
  for (long i = 0; i < count; i++) {
    result = ioctl(fd, request, 0);
  }
  return result;
}
