package dev.tidemark.bench.jmh;

import dev.tidemark.bench.hot.BitmapInput;
import dev.tidemark.bench.hot.MergePath;
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
 * Merging a source's answer into a plane, and its rivals. What clears the source is measured with
 * the kernel's copy before it, which {@link #kernelOverwrite} measures alone.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class MergeBenchmark {
  /** Bytes of bitmap: a guest of 1 GiB, of 16 GiB and of 1 TiB in pages of 4 KiB. */
  @Param({"32768", "524288", "33554432"})
  long bytes;

  /** How many pages are dirty. */
  @Param({"0.001", "0.01", "1"})
  double density;

  /** Whether in runs of 64. */
  @Param("false")
  boolean clustered;

  private MergePath path;

  /** Makes the bitmaps, and compares the results. */
  @Setup(Level.Trial)
  public void make() {
    path = new MergePath(bytes, new BitmapInput(density, clustered));
    Inputs.check(path.sameOrCount(), path.orCount(), "orCount");
    Inputs.check(orCountClear(), sameOrCountClear(), "orCountClear");
    Inputs.check(orCountClear(), bitSet(), "BitSet");
    Inputs.check(orCountClear(), roaring(), "RoaringBitmap");
  }

  /** Frees the bitmaps. */
  @TearDown(Level.Trial)
  public void free() {
    path.close();
  }

  /** {@code dst |= src}, counting. */
  @Benchmark
  public long orCount() {
    return path.orCount();
  }

  /** The same by the scalar twin. */
  @Benchmark
  public long scalarOrCount() {
    return path.scalarOrCount();
  }

  /** The same algorithm in C. */
  @Benchmark
  public long sameOrCount() {
    return path.sameOrCount();
  }

  /** A plain loop in C. */
  @Benchmark
  public long plainOrCount() {
    return path.plainOrCount();
  }

  /** {@code memcpy} of as much. */
  @Benchmark
  public long limitCopy() {
    return path.limitCopy();
  }

  /** How many bits are set. */
  @Benchmark
  public long cardinality() {
    return path.cardinality();
  }

  /** The same in C. */
  @Benchmark
  public long sameCardinality() {
    return path.sameCardinality();
  }

  /** A new answer. */
  @Benchmark
  public void kernelOverwrite() {
    path.refill();
  }

  /** A new answer, merged, counted and cleared. */
  @Benchmark
  public long orCountClear() {
    path.refill();
    return path.orCountClear();
  }

  /** The same algorithm in C. */
  @Benchmark
  public long sameOrCountClear() {
    path.refill();
    return path.sameOrCountClear();
  }

  /** The same job with BitSet. */
  @Benchmark
  public long bitSet() {
    path.refill();
    return path.bitSet();
  }

  /** The same job with RoaringBitmap. */
  @Benchmark
  public long roaring() {
    path.refill();
    return path.roaring();
  }
}
