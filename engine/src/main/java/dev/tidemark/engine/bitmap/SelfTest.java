package dev.tidemark.engine.bitmap;

import com.sun.management.ThreadMXBean;
import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.management.ManagementFactory;
import java.util.Optional;

/** Small inputs that take every way through every kernel, to compare the twins and to warm up. */
final class SelfTest implements AutoCloseable {
  /** Words behind the whole ones: a line of a summary's word that is not whole, and an edge. */
  private static final int ODD_WORDS = 8 + 3;

  /** What has to be quick, as it runs interpreted at start-up: a word of a summary. */
  private static final int SHORT = 512;

  /** Four of the shortest stretches after which merges look whether the source was clean. */
  private static final int LONG = 4 * 4096;

  /** Where the ranges start: on words, shifted, and shifted with an edge. */
  private static final int[][] STARTS = {{0, 0}, {64, 3}, {61, 7}};

  private interface Kernel {
    long run(BitmapOps ops, Maps maps, long dstBit, long srcBit, long bits);
  }

  private record Named(String name, Kernel kernel) {}

  private static final Named ZERO_PAGES =
      new Named(
          "zeroPages", (ops, maps, dstBit, srcBit, bits) -> ops.zeroPages(maps.src, srcBit, 1));

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
    ZERO_PAGES,
    new Named(
        "summarize",
        (ops, maps, dstBit, srcBit, bits) -> ops.summarize(maps.src, maps.words, maps.lines)),
    new Named(
        "clearLines",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.summarize(maps.src, maps.words, maps.lines);
          ops.clearLines(maps.src, maps.words, maps.lines);
          return 0;
        }),
    new Named(
        "orLines",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.summarize(maps.src, maps.words, maps.lines);
          return ops.orLines(maps.dst, maps.src, maps.words, maps.lines);
        }),
    new Named(
        "listRuns",
        (ops, maps, dstBit, srcBit, bits) -> {
          ops.summarize(maps.src, maps.words, maps.lines);
          RunCursor runs = maps.runs;
          runs.reset(maps.src, maps.lines, bits);
          long sum = 0;
          for (int found = runs.batch(); found > 0; found = runs.batch()) {
            for (int run = 0; run < found; run++) {
              sum = sum * 31 + (runs.start(run) ^ runs.length(run));
            }
          }
          return sum;
        }),
  };

  /**
   * What a kernel works on: mappings, as a log's planes are. The compiler specializes a kernel for
   * the kind of memory it has seen, and starts anew when another kind comes.
   */
  private static final class Maps {
    final MemorySegment dst;
    final MemorySegment src;
    final MemorySegment lines;
    final int words;
    RunCursor runs;

    Maps(SegmentAllocator memory, int words) {
      this.words = words;
      dst = memory.allocate(words * 8L, 64);
      src = memory.allocate(words * 8L, 64);
      lines = memory.allocate((words / 512 + 1) * 8L, 64);
    }

    void fill(MemorySegment source, MemorySegment target) {
      src.copyFrom(source);
      dst.copyFrom(target);
      lines.fill((byte) 0x5a);
    }

    boolean equal(Maps other) {
      return dst.mismatch(other.dst) == -1
          && src.mismatch(other.src) == -1
          && lines.mismatch(other.lines) == -1;
    }
  }

  private static final int PATTERNS = 5;

  private final Named[] kernels;
  private final Mapping memory;
  private final MemorySegment[] patterns = new MemorySegment[PATTERNS];
  private final Maps mine;
  private final Maps theirs;

  private SelfTest(Named[] kernels, int words) {
    this.kernels = kernels;
    memory = Mapping.anonymous((PATTERNS + 6) * (words * 8L + 64));
    SegmentAllocator slices = SegmentAllocator.slicingAllocator(memory.segment());
    mine = new Maps(slices, words);
    theirs = new Maps(slices, words);
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
      patterns[pattern] = slices.allocate(words * 8L, 64);
      for (int i = 0; i < words; i++) {
        patterns[pattern].set(CheckedBitmapOps.WORD, i * 8L, word(pattern, i));
      }
    }
  }

  /** For the gate. */
  static SelfTest ofFewWords() {
    return new SelfTest(KERNELS, SHORT + ODD_WORDS);
  }

  /** To warm up, and for compiled code. */
  static SelfTest ofManyWords() {
    return new SelfTest(KERNELS, LONG + ODD_WORDS);
  }

  /** The same for the kernel that looks for zero pages, alone. */
  static SelfTest ofZeroPages() {
    return new SelfTest(new Named[] {ZERO_PAGES}, SHORT + ODD_WORDS);
  }

  @Override
  public void close() {
    memory.close();
  }

  /** Clean, clean for long, few words with bits, full, and all mixed. */
  private long word(int pattern, int index) {
    long mixed = (index + 1) * 0x9E3779B97F4A7C15L;
    return switch (pattern) {
      case 0 -> 0;
      case 1 -> index == LONG / 4 + 512 || index >= mine.words - 64 ? mixed : 0;
      case 2 -> index % 19 == 0 ? mixed : 0;
      case 3 -> -1;
      default -> mixed >>> 32 | mixed << 32;
    };
  }

  /** Which kernel of {@code ops} does not do what {@code reference}'s does, if any. */
  Optional<String> difference(BitmapOps ops, BitmapOps reference) {
    mine.runs = cursor(ops);
    theirs.runs = cursor(reference);
    for (Named named : kernels) {
      for (int pattern = 0; pattern < PATTERNS; pattern++) {
        for (int[] start : STARTS) {
          mine.fill(patterns[pattern], patterns[PATTERNS - 1]);
          theirs.fill(patterns[pattern], patterns[PATTERNS - 1]);
          long result = named.kernel.run(ops, mine, start[0], start[1], bits(pattern));
          long expected = named.kernel.run(reference, theirs, start[0], start[1], bits(pattern));
          if (result != expected || !mine.equal(theirs)) {
            return Optional.of(named.name);
          }
        }
      }
    }
    return Optional.empty();
  }

  /** Runs are listed by the twins themselves, not by the operations that they offer. */
  private static RunCursor cursor(BitmapOps ops) {
    return new RunCursor(ops instanceof CheckedBitmapOps twin ? twin : new ScalarBitmapOps());
  }

  /** Short where it can be; but what is clean has to be skipped, and what is not to go on. */
  private long bits(int pattern) {
    return pattern < 3 ? mine.words * 64L - 70 : 28 * 512 + 70;
  }

  /**
   * Runs one kernel after the other until it is compiled. That shows in that it allocates nothing:
   * until then, vectors are objects.
   *
   * @param rounds how often at least, for kernels without vectors
   * @param limit how long to wait for the compiler with each kernel, in ns: on a busy machine it
   *     may come too late, and the next one is not to pay for that
   */
  void warmUp(BitmapOps ops, int rounds, long limit) {
    mine.runs = cursor(ops);
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    for (Named named : kernels) {
      long deadline = System.nanoTime() + limit;
      long before;
      int round = 0;
      do {
        before = threads.getCurrentThreadAllocatedBytes();
        for (int pattern = 0; pattern < PATTERNS; pattern++) {
          for (int[] start : STARTS) {
            mine.fill(patterns[pattern], patterns[PATTERNS - 1]);
            named.kernel.run(ops, mine, start[0], start[1], bits(pattern));
          }
        }
        round++;
      } while ((round < rounds || threads.getCurrentThreadAllocatedBytes() != before)
          && System.nanoTime() - deadline < 0);
    }
  }
}
