package dev.tidemark.engine.bitmap;

import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/** Small inputs that take every way through every kernel, to compare the twins and to warm up. */
final class SelfTest implements AutoCloseable {
  /** Words of the bitmaps: a whole word of a summary, and an edge. */
  private static final int WORDS = 512 + 8 + 3;

  private static final long BITS = WORDS * 64L;

  /** Where the ranges start: on words, shifted, and shifted with an edge. */
  private static final int[][] STARTS = {{0, 0}, {64, 3}, {61, 7}};

  private interface Kernel {
    long run(BitmapOps ops, Maps maps, long dstBit, long srcBit, long bits);
  }

  private record Named(String name, Kernel kernel) {}

  private static final Named[] KERNELS = {
    new Named(
        "or",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.or(maps.dst, dstBit, maps.src, srcBit, bits);
          return 0;
        }),
    new Named(
        "orCount",
        (ops, maps, dstBit, srcBit, bits) -> ops.orCount(maps.dst, dstBit, maps.src, srcBit, bits)),
    new Named(
        "orCountClear",
        (ops, maps, dstBit, srcBit, bits) ->
            ops.orCountClear(maps.dst, dstBit, maps.src, srcBit, bits)),
    new Named(
        "andNot",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.andNot(maps.dst, dstBit, maps.src, srcBit, bits);
          return 0;
        }),
    new Named(
        "cardinality",
        (ops, maps, dstBit, srcBit, bits) -> ops.cardinality(maps.src, srcBit, bits)),
    new Named("any", (ops, maps, dstBit, srcBit, bits) -> ops.any(maps.src, srcBit, bits) ? 1 : 0),
    new Named(
        "set",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.set(maps.dst, dstBit, bits);
          return 0;
        }),
    new Named(
        "clear",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.clear(maps.dst, dstBit, bits);
          return 0;
        }),
    new Named(
        "nextSet",
        (ops, maps, dstBit, srcBit, bits) -> ops.nextSet(maps.src, srcBit, srcBit + bits)),
    new Named(
        "nextClear",
        (ops, maps, dstBit, srcBit, bits) -> ops.nextClear(maps.src, srcBit, srcBit + bits)),
    new Named(
        "isZero",
        (ops, maps, dstBit, srcBit, bits) -> ops.isZero(maps.src, srcBit, bits >>> 3) ? 1 : 0),
    new Named(
        "summarize",
        (ops, maps, dstBit, srcBit, bits) -> ops.summarize(maps.src, WORDS, maps.lines)),
    new Named(
        "clearLines",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.summarize(maps.src, WORDS, maps.lines);
          ops.clearLines(maps.src, WORDS, maps.lines);
          return 0;
        }),
    new Named(
        "orLines",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.summarize(maps.src, WORDS, maps.lines);
          return ops.orLines(maps.dst, maps.src, WORDS, maps.lines);
        }),
  };

  /**
   * What a kernel works on: mappings, as a log's planes are. The compiler specializes a kernel for
   * the kind of memory it has seen, and starts anew when another kind comes.
   */
  private static final class Maps {
    final Mapping[] mappings = new Mapping[3];
    final MemorySegment dst;
    final MemorySegment src;
    final MemorySegment lines;

    Maps() {
      dst = map(0, WORDS * 8L);
      src = map(1, WORDS * 8L);
      lines = map(2, 2 * 8L);
    }

    private MemorySegment map(int index, long bytes) {
      mappings[index] = Mapping.anonymous(bytes);
      return mappings[index].segment().asSlice(0, bytes);
    }

    void close() {
      for (Mapping mapping : mappings) {
        mapping.close();
      }
    }

    void fill(int pattern) {
      for (int i = 0; i < WORDS; i++) {
        long mixed = (i + 1) * 0x9E3779B97F4A7C15L;
        dst.set(CheckedBitmapOps.WORD, i * 8L, mixed >>> 32 | mixed << 32);
        src.set(CheckedBitmapOps.WORD, i * 8L, source(pattern, i, mixed));
      }
      lines.fill((byte) 0x5a);
    }

    private static long source(int pattern, int word, long mixed) {
      return switch (pattern) {
        case 0 -> 0;
        case 1 -> -1;
        case 2 -> word % 19 == 0 ? mixed : 0;
        default -> mixed;
      };
    }

    boolean equal(Maps other) {
      return dst.mismatch(other.dst) == -1
          && src.mismatch(other.src) == -1
          && lines.mismatch(other.lines) == -1;
    }
  }

  private static final int PATTERNS = 4;

  private final Maps mine;
  private final Maps theirs;

  SelfTest() {
    mine = new Maps();
    theirs = new Maps();
  }

  @Override
  public void close() {
    mine.close();
    theirs.close();
  }

  /** Which kernel of {@code ops} does not do what {@code reference}'s does, if any. */
  Optional<String> difference(BitmapOps ops, BitmapOps reference) {
    for (Named named : KERNELS) {
      for (int pattern = 0; pattern < PATTERNS; pattern++) {
        for (int[] start : STARTS) {
          mine.fill(pattern);
          theirs.fill(pattern);
          long bits = BITS - 70;
          long result = named.kernel.run(ops, mine, start[0], start[1], bits);
          long expected = named.kernel.run(reference, theirs, start[0], start[1], bits);
          if (result != expected || !mine.equal(theirs)) {
            return Optional.of(named.name);
          }
        }
      }
    }
    return Optional.empty();
  }

  /** Runs every kernel on every input, and looks at no result. */
  void exercise(BitmapOps ops) {
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
      for (Named named : KERNELS) {
        mine.fill(pattern);
        for (int[] start : STARTS) {
          named.kernel.run(ops, mine, start[0], start[1], BITS - 70);
        }
      }
    }
  }
}
