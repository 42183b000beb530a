package dev.tidemark.bench.jmh;

import dev.tidemark.bench.hot.StreamPath;
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

/** A migration stream over loopback, written and loaded in one process, beside a plain copy. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class StreamBenchmark {
  /** Bytes of memory. */
  @Param({"67108864", "1073741824"})
  long bytes;

  private StreamPath path;

  /** Makes the memory, and compares what arrives. */
  @Setup(Level.Trial)
  public void make() {
    path = new StreamPath(bytes);
    Inputs.check(bytes >> 12, path.tidemark(), "pages loaded");
    Inputs.check(1, path.arrived() ? 1 : 0, "all of the memory");
  }

  /** Frees the memory. */
  @TearDown(Level.Trial)
  public void free() {
    path.close();
  }

  /** Connect, write and load a whole stream. */
  @Benchmark
  public long stream() {
    return path.tidemark();
  }

  /** Connect, write and read the same bytes. */
  @Benchmark
  public long plainCopy() {
    return path.plainCopy();
  }
}
