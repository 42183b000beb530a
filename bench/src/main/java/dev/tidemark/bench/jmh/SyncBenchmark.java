package dev.tidemark.bench.jmh;

import dev.tidemark.bench.hot.BitmapInput;
import dev.tidemark.bench.hot.SyncPath;
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

/** A whole round but for the sending, beside QEMU's algorithm. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class SyncBenchmark {
  /** Bytes of guest memory: 16 GiB, 256 GiB, 1 TiB, 4 TiB. */
  @Param({"17179869184", "274877906944", "1099511627776", "4398046511104"})
  long ram;

  /** How many pages are dirty. */
  @Param({"0", "0.0001", "0.01", "0.5", "1"})
  double density;

  /** Whether in runs of 64. */
  @Param("false")
  boolean clustered;

  private SyncPath path;

  /** Makes both sides, and compares the results. */
  @Setup(Level.Trial)
  public void make() {
    Inputs.warmUp();
    path = new SyncPath(ram, new BitmapInput(density, clustered));
    Inputs.check(path.qemu(), path.tidemark(), "sum of pages");
  }

  /** Frees both sides. */
  @TearDown(Level.Trial)
  public void free() {
    path.close();
  }

  /** Tidemark's way. */
  @Benchmark
  public long tidemark() {
    return path.tidemark();
  }

  /** QEMU's way. */
  @Benchmark
  public long qemu() {
    return path.qemu();
  }
}
