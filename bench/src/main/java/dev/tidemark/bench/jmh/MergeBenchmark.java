package dev.tidemark.bench.jmh;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * Merging a source's answer into a plane, the scalar twin beside the vector twin. Run it with the
 * flags of {@code jdk-flags.txt}: the forks inherit them.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class MergeBenchmark {
  private static final long SEED = Long.getLong("tidemark.seed", 42);

  /** Bytes of bitmap: a guest of 1 GiB, of 16 GiB and of 1 TiB in pages of 4 KiB. */
  @Param({"32768", "524288", "33554432"})
  public long bytes;

  /** How many of the pages are dirty, scattered. */
  @Param({"0", "0.001", "0.01", "1"})
  public double density;

  /** By how many bits source and destination are out of step. */
  @Param({"0", "5"})
  public long shift;

  /** Which implementation runs. */
  @Param({"scalar", "vector"})
  public String twin;

  private Arena arena;
  private BitmapOps ops;
  private MemorySegment dst;
  private MemorySegment src;
  private MemorySegment answer;
  private long bits;

  /** Makes the bitmaps, and compares the twins on them. */
  @Setup(Level.Trial)
  public void fill() {
    ops = twin.equals("scalar") ? Bitmaps.scalar() : vector();
    arena = Arena.ofConfined();
    dst = arena.allocate(bytes, 64);
    src = arena.allocate(bytes, 64);
    answer = arena.allocate(bytes, 64);
    bits = bytes * 8 - shift;
    SplittableRandom random = new SplittableRandom(SEED);
    if (density == 1) {
      answer.fill((byte) -1);
    } else {
      for (long left = (long) (bits * density); left > 0; left--) {
        Bitmaps.scalar().set(answer, random.nextLong(bits), 1);
      }
    }
    long expected = Bitmaps.scalar().orCount(dst, 0, answer, shift, bits);
    MemorySegment model = arena.allocate(bytes, 64).copyFrom(dst);
    dst.fill((byte) 0);
    Inputs.check(expected, copyThenOrCountClear(), "bits newly set");
    Inputs.check(0, Bitmaps.scalar().cardinality(src, shift, bits), "bits left in the source");
    Inputs.check(-1, model.mismatch(dst), "first difference");
    src.copyFrom(answer);
    dst.fill((byte) 0);
    Inputs.check(expected, orCount(), "bits newly set");
    Inputs.check(-1, model.mismatch(dst), "first difference");
    dst.fill((byte) 0);
    or();
    Inputs.check(-1, model.mismatch(dst), "first difference");
  }

  private static BitmapOps vector() {
    return Bitmaps.vector()
        .orElseThrow(() -> new IllegalStateException("no vectors: start with java @jdk-flags.txt"));
  }

  /** Frees the bitmaps. */
  @TearDown(Level.Trial)
  public void free() {
    arena.close();
  }

  /** {@code dst |= src}. */
  @Benchmark
  public void or() {
    ops.or(dst, 0, src, shift, bits);
  }

  /** The same, counting. */
  @Benchmark
  public long orCount() {
    return ops.orCount(dst, 0, src, shift, bits);
  }

  /** A new answer, merged, counted and cleared: {@link #copy} is the part that is not the merge. */
  @Benchmark
  public long copyThenOrCountClear() {
    copy();
    return ops.orCountClear(dst, 0, src, shift, bits);
  }

  /** What a kernel does that overwrites. */
  @Benchmark
  public void copy() {
    MemorySegment.copy(
        answer, ValueLayout.JAVA_LONG, 0, src, ValueLayout.JAVA_LONG, 0, bytes / Long.BYTES);
  }
}
