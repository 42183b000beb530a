package dev.tidemark.engine.bitmap;

import com.sun.management.ThreadMXBean;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.internal.Unwind;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/**
 * What a log does with its plane after each sync, done until it is compiled. Compiled code gives up
 * at the first input of a kind that it has not seen, and until it is compiled again, which takes
 * hundreds of harvests, its vectors are objects. So there are many kinds here: dense and sparse,
 * scattered and in runs, of whole blocks of lines and not, in cache and out of it.
 */
final class HarvestWarmUp implements AutoCloseable {
  /** A vector of a summary; and with it a word of it, a line more, and a part of one. */
  private static final int WHOLE_WORDS = 512 * 8;

  private static final int ODD_WORDS = WHOLE_WORDS + (64 + 1) * 8 + 3;

  private static final long BYTES = ODD_WORDS * 8L;

  /** Bytes of a bitmap that counts as out of cache, however few are harvested. */
  private static final long FAR = 2 << 20;

  /** How many bits are set by chance; how many random words are anded for each; how many runs. */
  private static final int[] SCATTERED = {0, 1, 80, 800, 8000};

  private static final int[] ANDED = {3, 2, 1, 0};
  private static final int[] RUNS = {1, 20, 400};

  /** So many rounds without garbage, and each kind was met by compiled code. */
  private static final int QUIET_ROUNDS = 3;

  private static final int KINDS = SCATTERED.length + ANDED.length + RUNS.length + 1;

  /** Bytes of the bitmap that has some of each kind. */
  private static final long ALL = KINDS * WHOLE_WORDS * 8L;

  private final Mapping memory = Mapping.anonymous(KINDS * (BYTES + 64) + ALL);
  private final Mapping plane;
  private final Mapping summary;
  private final MemorySegment far;
  private final MemorySegment near;
  private final List<MemorySegment> inputs = new ArrayList<>();
  private final MemorySegment all;

  HarvestWarmUp() {
    Mapping second = null;
    try {
      second = Mapping.anonymous(FAR);
      summary = Mapping.anonymous(FAR >> 9);
    } catch (Throwable e) {
      Unwind.closeAll(e, second, memory);
      throw e;
    }
    plane = second;
    far = plane.segment();
    near = far.asSlice(0, ALL);
    SegmentAllocator slices = SegmentAllocator.slicingAllocator(memory.segment());
    Random random = new Random(1);
    long bits = BYTES * 8;
    for (int some : SCATTERED) {
      MemorySegment input = slices.allocate(BYTES, 64);
      for (int i = 0; i < some; i++) {
        ScalarBitmapOps.setRange(input, random.nextLong(bits), 1);
      }
      inputs.add(input);
    }
    for (int ands : ANDED) {
      MemorySegment input = slices.allocate(BYTES, 64);
      for (int word = 0; word < ODD_WORDS; word++) {
        long and = -1;
        for (int i = 0; i < ands; i++) {
          and &= random.nextLong();
        }
        input.set(CheckedBitmapOps.WORD, word * 8L, and);
      }
      inputs.add(input);
    }
    for (int some : RUNS) {
      MemorySegment input = slices.allocate(BYTES, 64);
      for (int i = 0; i < some; i++) {
        long length = 1L << random.nextInt(13);
        ScalarBitmapOps.setRange(input, random.nextLong(bits - length), length);
      }
      inputs.add(input);
    }
    // Runs that end with a line, in front of one that has none.
    MemorySegment input = slices.allocate(BYTES, 64);
    for (long end = 512; end < bits; end += 3 * 512) {
      ScalarBitmapOps.setRange(input, end - 5, 5);
    }
    inputs.add(input);
    all = slices.allocate(ALL, 64);
    for (int kind = 0; kind < KINDS; kind++) {
      long some = WHOLE_WORDS * 8L;
      MemorySegment.copy(inputs.get(kind), 0, all, kind * some, some);
    }
  }

  /**
   * Harvests.
   *
   * @param limit how long to wait for the compiler, in ns
   * @return whether all that was compiled finds what the reference does
   */
  boolean run(CheckedBitmapOps ops, CheckedBitmapOps reference, long limit) {
    long expected = harvestAll(reference, new RunCursor(reference));
    RunCursor runs = new RunCursor(ops);
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    long start = System.nanoTime();
    int quiet = 0;
    while (quiet < QUIET_ROUNDS && System.nanoTime() - start < limit) {
      long before = threads.getCurrentThreadAllocatedBytes();
      if (harvestAll(ops, runs) != expected) {
        return false;
      }
      // Asking may allocate, too; a vector is an object of more than 64 bytes.
      quiet = threads.getCurrentThreadAllocatedBytes() - before < 64 ? quiet + 1 : 0;
    }
    return true;
  }

  private long harvestAll(CheckedBitmapOps ops, RunCursor runs) {
    long sum = 0;
    for (MemorySegment input : inputs) {
      sum = sum * 31 + harvest(ops, runs, input, near, ODD_WORDS);
    }
    sum = sum * 31 + harvest(ops, runs, all, near, ALL >> 3);
    sum = sum * 31 + harvest(ops, runs, all, far, ALL >> 3);
    return sum;
  }

  private long harvest(
      CheckedBitmapOps ops, RunCursor runs, MemorySegment input, MemorySegment map, long words) {
    MemorySegment lines = summary.segment();
    MemorySegment.copy(input, 0, map, 0, words * 8);
    long sum = ops.summarize(map, words, lines);
    runs.reset(map, lines, words * 64);
    for (int n = runs.batch(); n > 0; n = runs.batch()) {
      for (int run = 0; run < n; run++) {
        sum = sum * 31 + (runs.start(run) ^ runs.length(run));
      }
    }
    ops.clearLines(map, words, lines);
    return sum * 31 + ops.cardinality(map, 0, words * 64);
  }

  @Override
  public void close() {
    Unwind.rethrow(Unwind.closeAll(null, summary, plane, memory));
  }
}
