package dev.tidemark.bench.jmh;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.ValueLayout;
import java.util.List;
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

/** A round of a guest that is a process: 256 MiB, of which some pages are written in between. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class PagemapScanBenchmark {
  private static final long BYTES = 256 << 20;

  /** Every how manieth page is written. */
  @Param({"10", "1000"})
  int every;

  private Mapping memory;
  private DirtyTracker tracker;

  /** Maps the memory and turns tracking on. */
  @Setup(Level.Trial)
  public void start() {
    Inputs.warmUp();
    memory = Mapping.anonymous(BYTES);
    memory.segment().fill((byte) 1);
    RamBlock block = new RamBlock("ram", memory.segment());
    tracker = new DirtyTracker(List.of(block));
    tracker.add(new PagemapScanSource(tracker.logs()));
    tracker.start();
    round();
    write();
    Inputs.check((BYTES / Pages.SIZE + every - 1) / every, round(), "dirty pages");
  }

  /** Turns tracking off. */
  @TearDown(Level.Trial)
  public void stop() {
    tracker.close();
    memory.close();
  }

  private long round() {
    tracker.sync();
    long pages = tracker.harvest();
    tracker.commit();
    return pages;
  }

  /** Writes the pages, none of them protected. */
  @Benchmark
  public void write() {
    for (long page = 0; page < BYTES / Pages.SIZE; page += every) {
      memory.segment().set(ValueLayout.JAVA_LONG, page * Pages.SIZE, page);
    }
  }

  /** Writes them, asks for them, and takes them: faults, scan, plane, harvest, commit. */
  @Benchmark
  public long writeAndRound() {
    write();
    return round();
  }
}
