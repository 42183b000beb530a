package dev.tidemark.bench.jmh;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.ThreadLocalRandom;
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
import org.openjdk.jmh.annotations.Threads;
import org.openjdk.jmh.annotations.Warmup;

/** Pages that the VMM marks as written, from one thread and from two. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class MarksBenchmark {
  private RamBlockLog log;

  /** Makes a log of 16 GiB, whose memory nobody touches. */
  @Setup(Level.Trial)
  @SuppressWarnings("restricted")
  public void make() {
    log =
        new RamBlockLog(
            new RamBlock("ram", MemorySegment.ofAddress(1L << 40).reinterpret(1L << 34)));
  }

  /** Frees the log. */
  @TearDown(Level.Trial)
  public void free() {
    log.close();
  }

  private void mark() {
    log.mark(ThreadLocalRandom.current().nextLong(log.block().pages()), 1);
  }

  /** One thread. */
  @Benchmark
  @Threads(1)
  public void oneThread() {
    mark();
  }

  /** Two threads. */
  @Benchmark
  @Threads(2)
  public void twoThreads() {
    mark();
  }
}
