// Six computations such as services do, the same source for a guest and for a native program: each prints its name and the
// nanoseconds of its fastest of a few rounds.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint32_t seed = 1;

// Numbers without an order.
static uint32_t next(void) { return seed = seed * 1664525 + 1013904223; }

static uint32_t right(uint32_t value, int by) { return value >> by | value << (32 - by); }

// Integers: SHA-256 of 16 MB.
static uint64_t integer(void) {
  static uint32_t constants[64];
  if (!constants[1])
    // The fractions of cube roots of primes, as the standard has them, would be a table; any numbers cost the same.
    for (int i = 0; i < 64; i++) constants[i] = next();
  uint32_t state[8], block[64];
  for (int i = 0; i < 8; i++) state[i] = i * 0x9e3779b9;
  for (uint32_t number = 0; number < (16 << 20) / 64; number++) {
    for (int i = 0; i < 16; i++) block[i] = number * 16 + i;
    for (int i = 16; i < 64; i++) {
      uint32_t a = block[i - 15], b = block[i - 2];
      block[i] = block[i - 16] + (right(a, 7) ^ right(a, 18) ^ a >> 3) + block[i - 7] + (right(b, 17) ^ right(b, 19) ^ b >> 10);
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
      uint32_t one = h + (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + block[i];
      uint32_t two = (right(a, 2) ^ right(a, 13) ^ right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
  }
  return state[0];
}

// Double precision: five bodies under gravity.
static uint64_t floating(void) {
  enum { BODIES = 5, STEPS = 500000 };
  double at[BODIES][3], speed[BODIES][3], mass[BODIES];
  for (int i = 0; i < BODIES; i++) {
    mass[i] = i ? 0.04 / i : 39.0;
    for (int axis = 0; axis < 3; axis++) {
      at[i][axis] = i ? i * 6.0 + axis * 0.7 : 0;
      speed[i][axis] = i ? 0.5 / i * (axis - 1) : 0;
    }
  }
  for (int step = 0; step < STEPS; step++) {
    for (int i = 0; i < BODIES; i++)
      for (int j = i + 1; j < BODIES; j++) {
        double x = at[i][0] - at[j][0], y = at[i][1] - at[j][1], z = at[i][2] - at[j][2];
        double square = x * x + y * y + z * z, pull = 0.01 / (square * __builtin_sqrt(square));
        speed[i][0] -= x * mass[j] * pull, speed[i][1] -= y * mass[j] * pull, speed[i][2] -= z * mass[j] * pull;
        speed[j][0] += x * mass[i] * pull, speed[j][1] += y * mass[i] * pull, speed[j][2] += z * mass[i] * pull;
      }
    for (int i = 0; i < BODIES; i++)
      for (int axis = 0; axis < 3; axis++) at[i][axis] += 0.01 * speed[i][axis];
  }
  return (uint64_t)(at[0][0] * 1e9);
}

// Memory: a hash table of 16 MB, filled and asked in no order.
static uint64_t memory(void) {
  const uint32_t mask = (1 << 21) - 1;
  uint64_t *table = calloc(mask + 1, sizeof *table), found = 0;
  for (int round = 0; round < 2; round++) {
    seed = 1;
    for (int step = 0; step < 1000000; step++) {
      uint64_t key = ((uint64_t)next() << 20 | next() >> 12) | 1;
      uint32_t slot = (uint32_t)(key * 0x9e3779b97f4a7c15 >> 40) & mask;
      while (table[slot] && table[slot] != key) slot = (slot + 1) & mask;
      found += table[slot] == key;
      table[slot] = key;
    }
  }
  free(table);
  return found;
}

static int order(const void *left, const void *right) {
  uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
  return (a > b) - (a < b);
}

// Calls through a pointer and branches that no processor guesses: heap sort with a comparison from outside.
static uint64_t calls(void) {
  enum { SIZE = 400000 };
  int (*volatile pointer)(const void *, const void *) = order;
  int (*compare)(const void *, const void *) = pointer;
  uint32_t *values = malloc(SIZE * sizeof *values);
  for (size_t i = 0; i < SIZE; i++) values[i] = next();
  for (size_t start = SIZE / 2, end = SIZE; end > 1;) {
    if (start > 0) {
      start--;
    } else {
      end--;
      uint32_t top = values[0];
      values[0] = values[end];
      values[end] = top;
    }
    for (size_t root = start, child; (child = 2 * root + 1) < end; root = child) {
      if (child + 1 < end && compare(&values[child], &values[child + 1]) < 0) child++;
      if (compare(&values[root], &values[child]) >= 0) break;
      uint32_t value = values[root];
      values[root] = values[child];
      values[child] = value;
    }
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < SIZE; i++) sum = sum * 31 + values[i];
  free(values);
  return sum;
}

// Bytes and branches: the depth, strings and numbers of a document in JSON, character by character.
static uint64_t parse(void) {
  static const char item[] = "{\"name\": \"item \\\"one\\\"\", \"price\": 12.50, \"tags\": [\"a\", \"bc\", null, true], \"count\": 1024},\n";
  enum { SIZE = 8 << 20 };
  char *text = malloc(SIZE);
  for (size_t i = 0; i < SIZE; i++) text[i] = item[i % (sizeof item - 1)];
  uint64_t depth = 0, deepest = 0, strings = 0, numbers = 0;
  for (const char *at = text, *end = text + SIZE; at < end; at++) switch (*at) {
      case '{':
      case '[':
        if (++depth > deepest) deepest = depth;
        break;
      case '}':
      case ']':
        depth--;
        break;
      case '"':
        for (at++; at < end && *at != '"'; at++) at += *at == '\\';
        strings++;
        break;
      case '0' ... '9': {
        uint64_t value = 0;
        while (at < end && ((*at >= '0' && *at <= '9') || *at == '.')) value = value * 10 + (uint64_t)(*at++ - '0');
        numbers += value;
        at--;
      }
    }
  free(text);
  return deepest + strings + numbers;
}

typedef uint32_t lanes __attribute__((vector_size(16)));

static lanes turned(lanes value, int by) { return value << by | value >> (32 - by); }

// Vectors of 128 bits, written as such: the rounds of ChaCha20 over 16 MB, four blocks at a time.
static uint64_t simd(void) {
  static const uint8_t quarters[8][4] = {{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15},
                                         {0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14}};
  uint32_t sum = 0;
  for (uint32_t number = 0; number < (16 << 20) / 256; number++) {
    lanes state[16];
    for (uint32_t i = 0; i < 16; i++) state[i] = (lanes){i, i + 1, i + 2, i + 3} * 0x9e3779b9 + number;
    for (int round = 0; round < 10; round++)
#pragma clang loop unroll(full)
      for (int i = 0; i < 8; i++) {
        lanes *a = &state[quarters[i][0]], *b = &state[quarters[i][1]], *c = &state[quarters[i][2]], *d = &state[quarters[i][3]];
        *a += *b, *d = turned(*d ^ *a, 16), *c += *d, *b = turned(*b ^ *c, 12);
        *a += *b, *d = turned(*d ^ *a, 8), *c += *d, *b = turned(*b ^ *c, 7);
      }
    for (int i = 0; i < 16; i++) sum += state[i][0] ^ state[i][1] ^ state[i][2] ^ state[i][3];
  }
  return sum;
}

static uint64_t nanoseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

int main(void) {
  static const struct {
    const char *name;
    uint64_t (*run)(void);
  } kernels[] = {
      {"integer", integer}, {"float", floating}, {"memory", memory}, {"calls", calls}, {"parse", parse}, {"simd", simd},
  };
  volatile uint64_t kept;
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
    uint64_t fastest = UINT64_MAX;
    for (int round = 0; round < 5; round++) {
      uint64_t start = nanoseconds();
      kept = kernels[i].run();
      uint64_t taken = nanoseconds() - start;
      if (taken < fastest) fastest = taken;
    }
    printf("%s %llu\n", kernels[i].name, (unsigned long long)fastest);
  }
  (void)kept;
}
