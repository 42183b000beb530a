package dev.tidemark.bench.jmh;

import dev.tidemark.bench.hot.IoctlPath;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/** What a call of the kernel costs, see {@link IoctlPath}. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class IoctlBenchmark {
  private IoctlPath path;

  /** Opens the device, and compares the answers. */
  @Setup(Level.Trial)
  public void open() {
    path = new IoctlPath();
    Inputs.check(path.rival(), path.tidemark(), "answer");
  }

  /** Closes the device. */
  @TearDown(Level.Trial)
  public void close() {
    path.close();
  }

  /** A request whose argument is a number. */
  @Benchmark
  public int call() {
    return path.call();
  }

  /** A request whose argument is memory. */
  @Benchmark
  public int callWithMemory() {
    return path.callWithMemory();
  }

  /** {@link IoctlPath#CALLS} calls in C. */
  @Benchmark
  public long thousandInC() {
    return path.rival();
  }
}
