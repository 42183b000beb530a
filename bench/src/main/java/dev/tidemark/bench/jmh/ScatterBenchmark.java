package dev.tidemark.bench.jmh;

import dev.tidemark.bench.hot.BitmapInput;
import dev.tidemark.bench.hot.ScatterPath;
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

/** Merging a bitmap in IOVA order into one in page order, beside two ways in C. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class ScatterBenchmark {
  /** Pages in a mapping. */
  @Param({"512", "8192"})
  long piece;

  /** How many of the pages are dirty. */
  @Param({"0.0001", "0.01", "0.5"})
  double density;

  private ScatterPath path;

  /** Makes the bitmaps, and compares what is found new in an empty plane. */
  @Setup(Level.Trial)
  public void make() {
    path = new ScatterPath(512 << 10, piece, new BitmapInput(density, false));
    path.refill();
    Inputs.check(0, path.tidemark(), "new bits the second time");
    path.refill();
    Inputs.check(0, path.rival(), "new bits by the rival");
    path.refill();
    Inputs.check(0, path.bitByBit(), "new bits by the other rival");
  }

  /** Frees the bitmaps. */
  @TearDown(Level.Trial)
  public void free() {
    path.close();
  }

  /** Writes the source and merges it, as the source is clear afterwards. */
  @Benchmark
  public long tidemark() {
    path.refill();
    return path.tidemark();
  }

  /** The same in C, by the word. */
  @Benchmark
  public long c() {
    path.refill();
    return path.rival();
  }

  /** The same in C, bit by bit. */
  @Benchmark
  public long bitByBitInC() {
    path.refill();
    return path.bitByBit();
  }
}
