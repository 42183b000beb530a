package dev.tidemark.bench.jmh;

import dev.tidemark.bench.hot.BitmapInput;
import dev.tidemark.bench.hot.HarvestPath;
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
 * Harvest and commit of a plane, with the copy that makes it dirty again: {@link #refill} alone is
 * that copy.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class HarvestBenchmark {
  /** Bytes of bitmap. */
  @Param({"524288", "33554432"})
  long bytes;

  /** How many pages are dirty. */
  @Param({"0", "0.0001", "0.001", "0.01", "0.1", "0.5", "1"})
  double density;

  /** Whether in runs of 64. */
  @Param({"false", "true"})
  boolean clustered;

  private HarvestPath path;

  /** Makes the bitmaps; that compares the results. */
  @Setup(Level.Trial)
  public void make() {
    Inputs.warmUp();
    path = new HarvestPath(bytes, new BitmapInput(density, clustered));
  }

  /** Frees the bitmaps. */
  @TearDown(Level.Trial)
  public void free() {
    path.close();
  }

  /** Makes the plane dirty. */
  @Benchmark
  public void refill() {
    path.refill();
  }

  /** Tidemark's way. */
  @Benchmark
  public long harvest() {
    path.refill();
    return path.tidemark();
  }

  /** The same algorithm in C. */
  @Benchmark
  public long same() {
    path.refill();
    return path.same();
  }

  /** Find-next-bit with test-and-clear per page, in C. */
  @Benchmark
  public long bitByBit() {
    path.refill();
    return path.bitByBit();
  }
}
