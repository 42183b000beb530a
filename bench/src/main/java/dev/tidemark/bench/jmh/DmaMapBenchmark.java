package dev.tidemark.bench.jmh;

import dev.tidemark.bench.hot.DmaMapPath;
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

/** The ledger of a guest's vIOMMU, beside a {@link java.util.TreeMap}. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class DmaMapBenchmark {
  /** How many mappings there are. */
  @Param({"1000", "100000", "1000000"})
  int mappings;

  private DmaMapPath path;

  /** Makes the mappings. */
  @Setup(Level.Trial)
  public void make() {
    path = new DmaMapPath(mappings);
    path.draw();
    Inputs.check(DmaMapPath.CHANGES, path.lookUps(), "pages found");
    Inputs.check(path.treeMap(), path.tidemark(), "mappings");
  }

  /** Frees them. */
  @TearDown(Level.Trial)
  public void free() {
    path.close();
  }

  /** {@link DmaMapPath#CHANGES} times unmap and map. */
  @Benchmark
  public long changes() {
    path.draw();
    return path.tidemark();
  }

  /** The same with a TreeMap. */
  @Benchmark
  public long changesInTreeMap() {
    path.draw();
    return path.treeMap();
  }

  /** All gap-free runs. */
  @Benchmark
  public long runs() {
    return path.runs();
  }

  /** Looks up {@link DmaMapPath#CHANGES} pages. */
  @Benchmark
  public long lookUps() {
    return path.lookUps();
  }
}
