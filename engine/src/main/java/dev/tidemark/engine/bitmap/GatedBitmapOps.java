package dev.tidemark.engine.bitmap;

import com.sun.management.ThreadMXBean;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.lang.management.ManagementFactory;

/**
 * Runs each operation on the vector twin if its kernel is proven to be compiled, else on the scalar
 * twin, as it does with all memory that an arena may close. Never waits for the compiler.
 *
 * <p>A kernel is wanted once its scalar twin has had so much work that vectors would pay, and is
 * proven then ({@link Prover}). One that allocates later goes back.
 */
final class GatedBitmapOps extends CheckedBitmapOps {
  /** Bits that take the scalar twin 2 ms: a bitmap of 8 MiB, the pages of 256 GiB. */
  private static final long WORTHWHILE = 1L << 26;

  /** A range of fewer bits takes so little time that asking what it allocated would show in it. */
  private static final long WATCHED = 1 << 18;

  /** Vectors that are objects take more than this in a range that is watched, in bytes. */
  private static final long GARBAGE = 16 << 10;

  /** The scope of memory that no arena closes. */
  private static final MemorySegment.Scope ENDLESS = Arena.global().scope();

  private static final ScalarBitmapOps SCALAR = new ScalarBitmapOps();

  private static final VarHandle PROVEN;

  static {
    try {
      PROVEN = MethodHandles.lookup().findVarHandle(GatedBitmapOps.class, "proven", int.class);
    } catch (ReflectiveOperationException e) {
      throw new ExceptionInInitializerError(e);
    }
  }

  /** Loaded only when vectors run, as it takes some time. */
  private static final class Threads {
    static final ThreadMXBean BEAN = (ThreadMXBean) ManagementFactory.getThreadMXBean();
  }

  private final Prover prover;

  /** Written before the first kernel is published. */
  private CheckedBitmapOps vector;

  /** The kernels that are proven, as a set. */
  private volatile int proven;

  /** Bits that the scalar twin has done, by kernel; what threads lose to each other is little. */
  private final long[] scalarBits = new long[Kernel.values().length];

  GatedBitmapOps(Prover prover) {
    this.prover = prover;
  }

  /** Has a kernel run as vectors from now on. */
  void publish(Kernel kernel, CheckedBitmapOps twin) {
    vector = twin;
    PROVEN.getAndBitwiseOr(this, kernel.bit);
  }

  /** Has a kernel run scalar from now on. */
  void retract(Kernel kernel) {
    PROVEN.getAndBitwiseAnd(this, ~kernel.bit);
  }

  /** The kernels that run as vectors, as a set. */
  int proven() {
    return proven;
  }

  private boolean isProven(Kernel kernel, MemorySegment map) {
    return (proven & kernel.bit) != 0 && map.scope() == ENDLESS;
  }

  private boolean isProven(Kernel kernel, MemorySegment one, MemorySegment other) {
    return (proven & kernel.bit) != 0 && one.scope() == ENDLESS && other.scope() == ENDLESS;
  }

  /** Notes that the scalar twin did so much, and has vectors proven when that is enough. */
  private void done(Kernel kernel, long bits) {
    long sum = scalarBits[kernel.ordinal()] + bits;
    boolean enough = sum >= WORTHWHILE;
    scalarBits[kernel.ordinal()] = enough ? 0 : sum;
    if (enough && (proven & kernel.bit) == 0) {
      prover.want(kernel.bit);
    }
  }

  private static long before(long bits) {
    return bits < WATCHED ? -1 : Threads.BEAN.getCurrentThreadAllocatedBytes();
  }

  private void after(Kernel kernel, long before) {
    if (before >= 0 && Threads.BEAN.getCurrentThreadAllocatedBytes() - before > GARBAGE) {
      prover.allocated(kernel);
    }
  }

  @Override
  void doOr(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    if (!isProven(Kernel.OR, dst, src)) {
      done(Kernel.OR, bits);
      ScalarBitmapOps.orRange(dst, dstBit, src, srcBit, bits);
      return;
    }
    long before = before(bits);
    vector.doOr(dst, dstBit, src, srcBit, bits);
    after(Kernel.OR, before);
  }

  @Override
  long doOrCount(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    if (!isProven(Kernel.OR_COUNT, dst, src)) {
      done(Kernel.OR_COUNT, bits);
      return ScalarBitmapOps.orCountRange(dst, dstBit, src, srcBit, bits);
    }
    long before = before(bits);
    long count = vector.doOrCount(dst, dstBit, src, srcBit, bits);
    after(Kernel.OR_COUNT, before);
    return count;
  }

  @Override
  long doOrCountClear(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    if (!isProven(Kernel.OR_COUNT_CLEAR, dst, src)) {
      done(Kernel.OR_COUNT_CLEAR, bits);
      return ScalarBitmapOps.orCountClearRange(dst, dstBit, src, srcBit, bits);
    }
    long before = before(bits);
    long count = vector.doOrCountClear(dst, dstBit, src, srcBit, bits);
    after(Kernel.OR_COUNT_CLEAR, before);
    return count;
  }

  @Override
  void doAndNot(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    if (!isProven(Kernel.AND_NOT, dst, src)) {
      done(Kernel.AND_NOT, bits);
      ScalarBitmapOps.andNotRange(dst, dstBit, src, srcBit, bits);
      return;
    }
    long before = before(bits);
    vector.doAndNot(dst, dstBit, src, srcBit, bits);
    after(Kernel.AND_NOT, before);
  }

  @Override
  long doCardinality(MemorySegment map, long bit, long bits) {
    if (!isProven(Kernel.CARDINALITY, map)) {
      done(Kernel.CARDINALITY, bits);
      return ScalarBitmapOps.cardinalityRange(map, bit, bits);
    }
    long before = before(bits);
    long count = vector.doCardinality(map, bit, bits);
    after(Kernel.CARDINALITY, before);
    return count;
  }

  @Override
  boolean doAny(MemorySegment map, long bit, long bits) {
    if (!isProven(Kernel.ANY, map)) {
      long found = ScalarBitmapOps.nextSetRange(map, bit, bit + bits);
      done(Kernel.ANY, found - bit);
      return found < bit + bits;
    }
    long before = before(bits);
    boolean any = vector.doAny(map, bit, bits);
    after(Kernel.ANY, before);
    return any;
  }

  @Override
  void doSet(MemorySegment map, long bit, long bits) {
    if (!isProven(Kernel.SET, map)) {
      done(Kernel.SET, bits);
      ScalarBitmapOps.setRange(map, bit, bits);
      return;
    }
    long before = before(bits);
    vector.doSet(map, bit, bits);
    after(Kernel.SET, before);
  }

  @Override
  void doClear(MemorySegment map, long bit, long bits) {
    if (!isProven(Kernel.CLEAR, map)) {
      done(Kernel.CLEAR, bits);
      ScalarBitmapOps.clearRange(map, bit, bits);
      return;
    }
    long before = before(bits);
    vector.doClear(map, bit, bits);
    after(Kernel.CLEAR, before);
  }

  @Override
  long doNextSet(MemorySegment map, long from, long end) {
    if (!isProven(Kernel.NEXT_SET, map)) {
      long found = ScalarBitmapOps.nextSetRange(map, from, end);
      done(Kernel.NEXT_SET, found - from);
      return found;
    }
    long before = before(end - from);
    long found = vector.doNextSet(map, from, end);
    after(Kernel.NEXT_SET, before);
    return found;
  }

  @Override
  long doNextClear(MemorySegment map, long from, long end) {
    if (!isProven(Kernel.NEXT_CLEAR, map)) {
      long found = ScalarBitmapOps.nextClearRange(map, from, end);
      done(Kernel.NEXT_CLEAR, found - from);
      return found;
    }
    long before = before(end - from);
    long found = vector.doNextClear(map, from, end);
    after(Kernel.NEXT_CLEAR, before);
    return found;
  }

  @Override
  long doSummarize(MemorySegment map, long words, MemorySegment lines) {
    if (!isProven(Kernel.SUMMARIZE, map, lines)) {
      done(Kernel.SUMMARIZE, words << 6);
      return ScalarBitmapOps.summarizeFrom(map, 0, words, lines);
    }
    long before = before(words << 6);
    long count = vector.doSummarize(map, words, lines);
    after(Kernel.SUMMARIZE, before);
    return count;
  }

  @Override
  void doClearLines(MemorySegment map, long words, MemorySegment lines) {
    if (!isProven(Kernel.CLEAR_LINES, map, lines)) {
      done(Kernel.CLEAR_LINES, words << 6);
      SCALAR.doClearLines(map, words, lines);
      return;
    }
    long before = before(words << 6);
    vector.doClearLines(map, words, lines);
    after(Kernel.CLEAR_LINES, before);
  }

  @Override
  long doOrLines(MemorySegment dst, MemorySegment src, long words, MemorySegment lines) {
    if (!isProven(Kernel.OR_LINES, dst, src)) {
      done(Kernel.OR_LINES, words << 6);
      return SCALAR.doOrLines(dst, src, words, lines);
    }
    long before = before(words << 6);
    long count = vector.doOrLines(dst, src, words, lines);
    after(Kernel.OR_LINES, before);
    return count;
  }

  @Override
  int listRuns(RunScan scan, long end, int n) {
    long first = scan.line;
    if (scan.twin == null) {
      scan.twin = isProven(Kernel.LIST_RUNS, scan.map) ? vector : SCALAR;
    }
    if (scan.twin == SCALAR) {
      int found = SCALAR.listRuns(scan, end, n);
      done(Kernel.LIST_RUNS, scan.line - first << 9);
      return found;
    }
    long before = before(end - first << 9);
    int found = scan.twin.listRuns(scan, end, n);
    after(Kernel.LIST_RUNS, before);
    return found;
  }
}
