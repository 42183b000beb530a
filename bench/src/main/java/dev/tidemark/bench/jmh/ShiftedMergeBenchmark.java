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

/** Merging from a source that begins some bits further on than the plane. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class ShiftedMergeBenchmark {
  /** How many bits. */
  @Param({"0", "1", "7", "8", "31", "32", "33", "63"})
  int shift;

  private MergePath path;

  /** Makes the bitmaps, and compares the results. */
  @Setup(Level.Trial)
  public void make() {
    path = new MergePath(524_288, new BitmapInput(0.01, false));
    if (shift > 0) {
      path.forget();
      long expected = path.sameOrCountShifted(shift);
      path.forget();
      Inputs.check(expected, path.orCountShifted(shift), "new bits");
    }
  }

  /** Frees the bitmaps. */
  @TearDown(Level.Trial)
  public void free() {
    path.close();
  }

  /** {@code dst |= src}, counting. */
  @Benchmark
  public long orCount() {
    return path.orCountShifted(shift);
  }
}
