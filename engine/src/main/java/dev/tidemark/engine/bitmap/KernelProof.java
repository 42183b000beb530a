package dev.tidemark.engine.bitmap;

import com.sun.management.ThreadMXBean;
import dev.tidemark.engine.bitmap.Kernel.Scratch;
import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.locks.LockSupport;

/**
 * Calls one kernel of the vector twin until it is compiled, and finds out when that is: until then
 * vectors are objects, and a call allocates. Each call is compared with the scalar twin's.
 *
 * <p>The calls are short, because what they allocate until then grows with their length; but
 * compiled code deoptimizes at the first input unlike those of its profile. So there are inputs of
 * many kinds (dense and sparse, scattered and in runs, clean for long, of whole blocks of lines and
 * not), a few long calls are made while the profile is taken, and a kernel is proven only when long
 * calls of all kinds have allocated nothing.
 *
 * <p>Threading: one thread. Footprint: 4 MiB until it is closed.
 */
final class KernelProof implements AutoCloseable {
  /** How a proof ended. */
  enum Verdict {
    /** Compiled, and right. */
    PROVEN,
    /** Still allocating when it had allocated as much as a proof may. */
    UNDECIDED,
    /** Another result than the scalar twin's. */
    WRONG
  }

  /** A word of a summary; and with it some lines of the next, and a part of one. */
  private static final int BLOCK = 512;

  private static final int ODD_LINES = 8 * 9 + 3;

  /** Words of a long input: more than merges do before they look whether the source was clean. */
  private static final int LONG = 8 * BLOCK + ODD_LINES;

  /** Four of those stretches, with a bit at the start, one after three, and some at the end. */
  private static final int LONGEST = 4 * 4096 + 11;

  /** Bytes of a bitmap that counts as out of cache. */
  private static final long FAR = 2 << 20;

  /** How many bits are set by chance; how many random words are anded for each; how many runs. */
  private static final int[] SCATTERED = {0, 1, 80, 800, 8000};

  private static final int[] ANDED = {3, 2, 1, 0};
  private static final int[] RUNS = {1, 20, 400};

  /** Where the ranges begin in destination and source: on words, shifted, shifted with an edge. */
  private static final int[][] STARTS = {{0, 0}, {64, 3}, {61, 7}};

  /**
   * Calls after which C1's code or the interpreter takes a profile, and so many more after which C2
   * is asked. When the profile begins depends on how busy the compilers are: the calls for it are
   * spread.
   */
  private static final int COUNTED = 6000;

  /** Empty calls between two calls for the profile. */
  private static final int SPREAD = 100;

  /** More of them where compiled code deoptimized. */
  private static final int COUNTED_AGAIN = 1500;

  /** Bits of a call for the profile: the trips of its loops, on average, that C2 expects. */
  private static final long PROFILED_BITS = 24 * 1024;

  /** Bytes of garbage after which it is given up. */
  private static final long MAX_GARBAGE = 64 << 20;

  private static final long MIN_PAUSE_NANOS = 500_000;
  private static final long MAX_PAUSE_NANOS = 500_000_000;

  /** A minute in all. */
  private static final int MAX_PAUSES = 130;

  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

  private final Mapping memory = Mapping.anonymous(4 << 20);
  private final List<MemorySegment> inputs = new ArrayList<>();
  private final MemorySegment longest;
  private final MemorySegment target;
  private final Scratch near;
  private final Scratch far;
  private final Scratch expected;
  private final RunScan scan = new RunScan();
  private final CheckedBitmapOps reference = new ScalarBitmapOps();

  /** What the vector twin allocated in this proof, in bytes. */
  private long garbage;

  KernelProof() {
    SegmentAllocator slices = SegmentAllocator.slicingAllocator(memory.segment());
    MemorySegment src = slices.allocate(FAR, 64);
    MemorySegment dst = slices.allocate(LONGEST * 8L, 64);
    MemorySegment lines = slices.allocate((LONGEST / BLOCK + 1) * 8L, 64);
    near = new Scratch(dst, src.asSlice(0, LONGEST * 8L), lines);
    far = new Scratch(dst, src, lines);
    expected =
        new Scratch(
            slices.allocate(LONGEST * 8L, 64),
            slices.allocate(LONGEST * 8L, 64),
            slices.allocate((LONGEST / BLOCK + 1) * 8L, 64));
    Random random = new Random(1);
    fillInputs(slices, random);
    longest = slices.allocate(LONGEST * 8L, 64);
    target = slices.allocate(LONGEST * 8L, 64);
    for (int word = 0; word < LONGEST; word++) {
      long mixed = random.nextLong();
      longest.set(
          CheckedBitmapOps.WORD,
          word * 8L,
          word == 0 || word == LONGEST * 3 / 4 || word >= LONGEST - 64 ? mixed | 1 : 0);
      target.set(CheckedBitmapOps.WORD, word * 8L, mixed & random.nextLong());
    }
  }

  private void fillInputs(SegmentAllocator slices, Random random) {
    long bits = LONG * 64L;
    for (int some : SCATTERED) {
      MemorySegment input = input(slices);
      for (int i = 0; i < some; i++) {
        ScalarBitmapOps.setRange(input, random.nextLong(bits), 1);
      }
    }
    for (int ands : ANDED) {
      MemorySegment input = input(slices);
      for (int word = 0; word < LONG; word++) {
        long and = -1;
        for (int i = 0; i < ands; i++) {
          and &= random.nextLong();
        }
        input.set(CheckedBitmapOps.WORD, word * 8L, and);
      }
    }
    for (int some : RUNS) {
      MemorySegment input = input(slices);
      for (int i = 0; i < some; i++) {
        long length = 1L << random.nextInt(13);
        ScalarBitmapOps.setRange(input, random.nextLong(bits - length), length);
      }
    }
    // Runs that end with a line, before one that has none.
    MemorySegment input = input(slices);
    for (long end = 512; end < bits; end += 3 * 512) {
      ScalarBitmapOps.setRange(input, end - 5, 5);
    }
  }

  private MemorySegment input(SegmentAllocator slices) {
    MemorySegment input = slices.allocate(LONG * 8L, 64);
    inputs.add(input);
    return input;
  }

  /** Proves a kernel; see the class. */
  Verdict prove(Kernel kernel, CheckedBitmapOps ops) {
    garbage = 0;
    for (int call = 0; call < COUNTED / SPREAD && garbage < MAX_GARBAGE; call++) {
      callEmpty(kernel, ops, SPREAD);
      if (!profileCall(kernel, ops, call) || !frequentCalls(kernel, ops, call)) {
        return Verdict.WRONG;
      }
    }
    long pause = MIN_PAUSE_NANOS;
    for (int pauses = 0; pauses < MAX_PAUSES && garbage < MAX_GARBAGE; pauses++) {
      // The compiler has threads of its own.
      LockSupport.parkNanos(this, pause);
      // Nobody has a reason to interrupt this thread, and with the status set no park waits.
      Thread.interrupted();
      pause = Math.min(pause * 2, MAX_PAUSE_NANOS);
      long before = garbage;
      if (!shortCalls(kernel, ops) || garbage == before && !longCalls(kernel, ops)) {
        return Verdict.WRONG;
      }
      if (garbage == before) {
        return Verdict.PROVEN;
      }
      callEmpty(kernel, ops, COUNTED_AGAIN);
    }
    return Verdict.UNDECIDED;
  }

  private void callEmpty(Kernel kernel, CheckedBitmapOps ops, int calls) {
    scan.begin(target, null, 0);
    for (int attempt = 0; attempt < calls * EmptyCalls.ATTEMPTS; attempt++) {
      ops.callEmpty(kernel, attempt, target, scan);
    }
  }

  /** What the last proof's calls allocated, in bytes. */
  long garbage() {
    return garbage;
  }

  /** One of each way into the kernel, until one allocates: it is not compiled then. */
  private boolean shortCalls(Kernel kernel, CheckedBitmapOps ops) {
    long before = garbage;
    boolean right = true;
    for (int kind = 0; kind < inputs.size() && garbage == before && right; kind++) {
      right = shortCall(kernel, ops, kind, STARTS[kind % STARTS.length]);
    }
    return right;
  }

  private boolean shortCall(Kernel kernel, CheckedBitmapOps ops, int kind, int[] start) {
    long bits =
        kernel.byLine()
            ? (kind % 3 == 0 ? ODD_LINES : BLOCK + kind % 2 * 3) * 64L
            : (1 + kind % 4) * 1024L + kind % 3 * 70;
    return call(kernel, ops, kind % 2 == 0 ? near : far, inputs.get(kind), start, bits);
  }

  /** Each kind in turn, on words and shifted; and what is clean for long, which allocates most. */
  private boolean profileCall(Kernel kernel, CheckedBitmapOps ops, int call) {
    int kind = call % (inputs.size() + 1);
    int start = call / (inputs.size() + 1) % (STARTS.length - 1);
    Scratch on = kind % 3 == 0 ? near : far;
    if (kind < inputs.size()) {
      long bits = profiledBits(kernel, kind, start);
      return call(kernel, ops, on, inputs.get(kind), STARTS[start], bits);
    }
    return kernel == Kernel.LIST_RUNS && start > 0
        || call(kernel, ops, on, longest, STARTS[start], bits(kernel, LONGEST));
  }

  /**
   * One of each way on, of a few vectors: what is called in fewer than one of 117 calls of a method
   * (MinInlineFrequencyRatio) C2 does not inline, and {@link Vectors#guard} would not work.
   */
  private boolean frequentCalls(Kernel kernel, CheckedBitmapOps ops, int call) {
    if (kernel.byLine()) {
      return true;
    }
    MemorySegment input = inputs.get(call % inputs.size());
    return call(kernel, ops, near, input, STARTS[0], 1024)
        && call(kernel, ops, near, input, STARTS[1], 2048);
  }

  private static long profiledBits(Kernel kernel, int kind, int start) {
    if (kernel == Kernel.LIST_RUNS) {
      // A word with edges costs most of all, and so does a line without a summary.
      boolean dense = kind >= 3 && kind < SCATTERED.length + ANDED.length;
      return (dense || start > 0 ? ODD_LINES : LONG) * 64L;
    }
    return kernel.byLine() ? (BLOCK + ODD_LINES) * 64L : PROFILED_BITS;
  }

  /** All kinds at full length, until a call allocates. */
  private boolean longCalls(Kernel kernel, CheckedBitmapOps ops) {
    long before = garbage;
    boolean right = true;
    for (int[] start : STARTS) {
      right &= call(kernel, ops, near, longest, start, bits(kernel, LONGEST));
      for (int kind = 0; kind < inputs.size() && garbage == before && right; kind++) {
        right = call(kernel, ops, near, inputs.get(kind), start, bits(kernel, LONG));
        right &= call(kernel, ops, far, inputs.get(kind), start, bits(kernel, LONG));
      }
    }
    return right;
  }

  /** A range that ends in the last word, wherever it begins; or all words. */
  private static long bits(Kernel kernel, int words) {
    return words * 64L - (kernel.byLine() ? 0 : 70);
  }

  private boolean call(
      Kernel kernel,
      CheckedBitmapOps ops,
      Scratch on,
      MemorySegment input,
      int[] start,
      long bits) {
    long bytes = Math.min((bits >>> 6) + 3 << 3, input.byteSize());
    fill(on, input, bytes);
    fill(expected, input, bytes);
    long before = THREADS.getCurrentThreadAllocatedBytes();
    long result = kernel.call(ops, on, start[0], start[1], bits);
    garbage += THREADS.getCurrentThreadAllocatedBytes() - before;
    return result == kernel.call(reference, expected, start[0], start[1], bits)
        && equal(on.dst, expected.dst, bytes)
        && equal(on.src, expected.src, bytes)
        && equal(on.lines, expected.lines, expected.lines.byteSize());
  }

  private void fill(Scratch on, MemorySegment input, long bytes) {
    MemorySegment.copy(input, 0, on.src, 0, bytes);
    MemorySegment.copy(target, 0, on.dst, 0, bytes);
    on.lines.fill((byte) 0x5a);
  }

  private static boolean equal(MemorySegment one, MemorySegment other, long bytes) {
    return MemorySegment.mismatch(one, 0, bytes, other, 0, bytes) == -1;
  }

  @Override
  public void close() {
    memory.close();
  }
}
