package dev.tidemark.bench.jmh;

import dev.tidemark.bench.hot.ZeroPath;
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

/** Looking for pages that hold only zeros. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class ZeroPagesBenchmark {
  /** Bytes of memory. */
  @Param({"524288", "67108864"})
  long bytes;

  /** Whether half of the pages have a byte that is not 0. */
  @Param({"false", "true"})
  boolean mixed;

  private ZeroPath path;

  /** Makes the memory, and compares the results. */
  @Setup(Level.Trial)
  public void make() {
    path = new ZeroPath(bytes, mixed);
    Inputs.check(path.rival(), path.tidemark(), "zero pages");
  }

  /** Frees the memory. */
  @TearDown(Level.Trial)
  public void free() {
    path.close();
  }

  /** Tidemark's way. */
  @Benchmark
  public long tidemark() {
    return path.tidemark();
  }

  /** In C. */
  @Benchmark
  public long rival() {
    return path.rival();
  }

  /** Reading all of it. */
  @Benchmark
  public long limitRead() {
    return path.limitRead();
  }
}
